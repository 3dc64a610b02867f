//! The kernel's parameters of connection tracking, as kube-proxy sets them (`cmd/kube-proxy/app/conntrack.go`).

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::sysctl::{self, Unchanged, Wanted};

/// Where they are among the parameters of the network.
pub const FOLDER: &str = "netfilter";
/// The machine's cores that run.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// How many connections are tracked at most.
const MAX: &str = "nf_conntrack_max";
/// Among so many lists they are divided.
const BUCKETS: &str = "nf_conntrack_buckets";
/// In so many seconds a connection is forgotten over which nothing comes.
const TCP_ESTABLISHED: &str = "nf_conntrack_tcp_timeout_established";
/// The same after one side has said that it has ended.
const TCP_CLOSE_WAIT: &str = "nf_conntrack_tcp_timeout_close_wait";
/// The same of UDP, which nobody has answered.
const UDP: &str = "nf_conntrack_udp_timeout";
/// The same of UDP, where both sides have sent more than once.
const UDP_STREAM: &str = "nf_conntrack_udp_timeout_stream";
/// Whether a packet is of a connection of TCP wherever in it it should be.
const TCP_BE_LIBERAL: &str = "nf_conntrack_tcp_be_liberal";
/// A list is so long on average when the table is full.
const CONNECTIONS_OF_BUCKET: u64 = 4;

/// What the parameters are to be. Of each 0 leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters {
    /// Connections for each core.
    pub max_per_core: u32,
    /// So many at least, where [`Self::max_per_core`] is not 0.
    pub min: u32,
    /// How long a connection is known over which nothing comes.
    pub tcp_established: Duration,
    /// The same after one side has said that it has ended.
    pub tcp_close_wait: Duration,
    /// The same of UDP, which nobody has answered.
    pub udp: Duration,
    /// The same of UDP, where both sides have sent more than once.
    pub udp_stream: Duration,
    /// Whether a packet is of a connection of TCP wherever in it it should be; else that is left as it is.
    pub tcp_be_liberal: bool,
}

impl Parameters {
    /// Has the parameters in a folder, see [`FOLDER`], be so on a node with so many cores. Those that are right are not
    /// written, and there may be more connections than wanted. What could not be is returned; the others are.
    #[must_use]
    pub fn apply(&self, folder: &Path, cores: usize) -> Vec<Unchanged> {
        let max = self.max(cores);
        let all = [
            (MAX, Wanted::AtLeast(max)),
            (BUCKETS, Wanted::AtLeast(max / CONNECTIONS_OF_BUCKET)),
            (TCP_ESTABLISHED, Wanted::Exactly(self.tcp_established.as_secs())),
            (TCP_CLOSE_WAIT, Wanted::Exactly(self.tcp_close_wait.as_secs())),
            (UDP, Wanted::Exactly(self.udp.as_secs())),
            (UDP_STREAM, Wanted::Exactly(self.udp_stream.as_secs())),
            (TCP_BE_LIBERAL, Wanted::Exactly(self.tcp_be_liberal.into())),
        ];
        let wanted = all.into_iter().filter(|(_, it)| it.number() > 0);
        wanted.filter_map(|(name, it)| sysctl::ensure(&folder.join(name), it).err()).collect()
    }

    fn max(&self, cores: usize) -> u64 {
        if self.max_per_core == 0 {
            return 0;
        }
        let cores = u64::try_from(cores).unwrap_or(u64::MAX);
        u64::from(self.max_per_core).saturating_mul(cores).max(self.min.into())
    }
}

/// How many cores the machine has, however many of them are for this process: connections are everybody's.
#[must_use]
pub fn cores() -> usize {
    let told = fs::read_to_string(ONLINE).ok().and_then(|it| count(&it));
    told.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZero::get))
}

/// Of numbers and ranges of them: `0-3,8`.
fn count(text: &str) -> Option<usize> {
    let ranges = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    ranges.sum()
}

/// Reads a time as Go writes it, of whole seconds: `24h`, `1h30m`, `90s`, `0`.
///
/// # Errors
/// A text that says what is wrong.
pub fn parse_seconds(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "not a time of whole seconds, like 1h30m";
    // The kernel counts them by a C int.
    let is_right = |it: &Duration| it.subsec_nanos() == 0 && i32::try_from(it.as_secs()).is_ok();
    cluster::parse_duration(text).filter(is_right).ok_or(WRONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 4] = [MAX, BUCKETS, TCP_ESTABLISHED, TCP_CLOSE_WAIT];

    const DEFAULT: Parameters = Parameters {
        max_per_core: 32_768,
        min: 131_072,
        tcp_established: Duration::from_hours(24),
        tcp_close_wait: Duration::from_hours(1),
        udp: Duration::ZERO,
        udp_stream: Duration::ZERO,
        tcp_be_liberal: false,
    };

    /// What files with these values have afterwards.
    fn applied(parameters: Parameters, cores: usize, values: [u64; 4]) -> [u64; 4] {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in ALL.iter().zip(values) {
            fs::write(folder.path().join(name), format!("{value}\n")).unwrap();
        }
        let unchanged = parameters.apply(folder.path(), cores);
        assert!(unchanged.is_empty(), "{unchanged:?}");
        ALL.map(|it| fs::read_to_string(folder.path().join(it)).unwrap().trim().parse().unwrap())
    }

    #[test]
    fn there_is_room_for_connections_by_cores_and_never_less_than_before() {
        let kept = [432_000, 60];
        let times = Parameters {
            tcp_established: Duration::ZERO,
            tcp_close_wait: Duration::ZERO,
            ..DEFAULT
        };
        let max = |cores, max, buckets| {
            let [max, buckets, established, close_wait] =
                applied(times, cores, [max, buckets, kept[0], kept[1]]);
            assert_eq!([established, close_wait], kept);
            (max, buckets)
        };
        assert_eq!(max(2, 65_536, 16_384), (131_072, 32_768));
        assert_eq!(max(8, 65_536, 131_072), (262_144, 131_072));
        assert_eq!(max(8, 1_000_000, 131_072), (1_000_000, 131_072));
    }

    #[test]
    fn times_are_set_where_they_differ_and_zero_leaves_all_as_it_is() {
        assert_eq!(applied(DEFAULT, 1, [131_072, 32_768, 432_000, 60])[2..], [86_400, 3600]);
        let zero = Parameters {
            max_per_core: 0,
            min: 1_000_000,
            tcp_established: Duration::ZERO,
            tcp_close_wait: Duration::ZERO,
            ..DEFAULT
        };
        assert_eq!(applied(zero, 64, [1, 2, 3, 4]), [1, 2, 3, 4]);
    }

    #[test]
    fn those_of_udp_and_how_strict_it_is_are_set_where_they_are_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let others = [UDP, UDP_STREAM, TCP_BE_LIBERAL].map(|it| folder.path().join(it));
        let values = || others.each_ref().map(|it| fs::read_to_string(it).unwrap());
        for file in ALL.map(|it| folder.path().join(it)).iter().chain(&others) {
            fs::write(file, "0").unwrap();
        }
        assert!(DEFAULT.apply(folder.path(), 1).is_empty());
        assert_eq!(values(), ["0"; 3]);
        let (udp, udp_stream) = (Duration::from_secs(30), Duration::from_mins(2));
        let asked = Parameters { udp, udp_stream, tcp_be_liberal: true, ..DEFAULT };
        assert!(asked.apply(folder.path(), 1).is_empty());
        assert_eq!(values(), ["30", "120", "1"]);
    }

    #[test]
    fn what_cannot_be_set_does_not_keep_the_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TCP_CLOSE_WAIT), "60").unwrap();
        fs::write(folder.path().join(BUCKETS), "many").unwrap();
        let unchanged = DEFAULT.apply(folder.path(), 1);
        let names: Vec<_> = unchanged.iter().map(|it| it.file.file_name().unwrap()).collect();
        assert_eq!(names, [MAX, BUCKETS, TCP_ESTABLISHED]);
        assert_eq!(fs::read_to_string(folder.path().join(TCP_CLOSE_WAIT)).unwrap(), "3600");
    }

    #[test]
    fn cores_are_counted_by_their_numbers() {
        assert_eq!(
            [count("0\n"), count("0-3\n"), count("0-3,8,10-11")],
            [Some(1), Some(4), Some(7)]
        );
        assert_eq!([count(""), count("3-1"), count("a")], [None; 3]);
        assert!(cores() > 0);
    }

    #[test]
    fn times_are_of_whole_seconds_that_the_kernel_can_count() {
        let seconds = |text| parse_seconds(text).map(|it| it.as_secs());
        assert_eq!((seconds("24h"), seconds("1h30m5s")), (Ok(86_400), Ok(5405)));
        assert_eq!((seconds("0"), seconds("0s")), (Ok(0), Ok(0)));
        for text in ["", "1", "1.5s", "500ms", "-1s", "999999h", "1h "] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
