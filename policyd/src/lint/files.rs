//! Reading the files.

use std::path::{Path, PathBuf};

use cluster::folder::{self, Defect, Format, LONGEST_FILE, content};

use super::{Finding, Located, Severity};
use crate::source::folder::Kinds;

/// The objects of all files, and what is wrong with the rest of them.
pub(super) fn read(files: &[PathBuf]) -> (Vec<Located>, Vec<Finding>) {
    let (mut objects, mut findings) = (Vec::new(), Vec::new());
    for file in files {
        match content(file) {
            Err(error) => findings.push(of_file(file, format!("cannot be read: {error}"))),
            Ok(text) if text.len() as u64 > LONGEST_FILE => {
                findings.push(of_file(file, format!("longer than {LONGEST_FILE} bytes")));
            }
            Ok(text) => {
                let (read, defects) = parse(file, &text);
                objects.extend(read);
                findings.extend(defects.into_iter().map(|defect| of_document(file, defect)));
            }
        }
    }
    (objects, findings)
}

fn parse(file: &Path, text: &[u8]) -> (Vec<Located>, Vec<Defect>) {
    let format = Format::of(file).unwrap_or(Format::Yaml);
    let kinds = Kinds { node: String::new(), keep: |it| it };
    let (manifest, defects) = folder::parse(format, text, &kinds);
    let objects = manifest.objects.into_iter().map(|it| Located {
        file: file.to_owned(),
        document: it.document,
        path: it.path,
        identity: it.identity,
        object: it.object,
    });
    (objects.collect(), defects)
}

fn of_file(file: &Path, text: String) -> Finding {
    let (file, path) = (file.to_owned(), String::new());
    Finding { file, document: None, object: None, path, severity: Severity::Error, text }
}

fn of_document(file: &Path, defect: Defect) -> Finding {
    Finding {
        file: file.to_owned(),
        document: Some(defect.document),
        object: None,
        path: defect.path.unwrap_or_default(),
        severity: Severity::Error,
        text: defect.problem.to_string(),
    }
}
