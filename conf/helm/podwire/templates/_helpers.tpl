{{- define "podwire.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- with .Values.image.pullPolicy }}
{{- /* What the API server takes for an image with a tag. */}}
{{- if ne . "IfNotPresent" }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "podwire.small" -}}
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {memory: 64Mi}
{{- end }}

{{- /* Of who writes files of the node, and nothing else. */}}
{{- define "podwire.writesFiles" -}}
securityContext:
  runAsUser: 0
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- /* Of who writes rules too. */}}
{{- define "podwire.writesRules" -}}
securityContext:
  runAsUser: 0
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN, NET_RAW]
{{- end }}

{{- /* What pods of the host's network, on every node, have in common. */}}
{{- define "podwire.pod" -}}
hostNetwork: true
dnsPolicy: Default
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
terminationGracePeriodSeconds: 10
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Where the list is, if not where policyd looks for it by itself. */}}
{{- define "podwire.confDir" -}}
{{- if ne .Values.cni.confDir "/etc/cni/net.d" }}
- --cni-conf-dir={{ .Values.cni.confDir }}
{{- end }}
{{- if ne .Values.cni.confName "10-podwire.conflist" }}
- --cni-conf-name={{ .Values.cni.confName }}
{{- end }}
{{- end }}

{{- /* Where the API server is reached without its Service, of which nobody may know the way. */}}
{{- define "podwire.apiServer" -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .Values.proxyd.apiServer.host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .Values.proxyd.apiServer.port | quote }}
{{- end }}
