//! The host's own resolvers, from resolv.conf(5).

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::limits::SERVERS;

/// The port of DNS.
const PORT: u16 = 53;

/// Bytes of the file that are read. What is behind is as if it were not there.
const FILE_BYTES: u64 = 64 * 1024;

/// The servers that the text names: the first three, as the C library takes them,
/// or the local host where it names none. Addresses with a zone are passed over,
/// because the name of an interface says nothing in another network namespace.
#[must_use]
pub fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(nameserver)
        .take(SERVERS)
        .map(|address| (address, PORT).into())
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

/// The keyword must begin the line, as resolv.conf(5) says; so a comment never
/// matches, and what follows the address does not matter.
fn nameserver(line: &str) -> Option<IpAddr> {
    let rest = line.strip_prefix("nameserver")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Which file was read: a change of any of these is a change of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

/// A resolv.conf that is read again when it changes.
#[derive(Debug)]
pub struct Resolvers {
    path: PathBuf,
    read: Mutex<Option<(Stamp, Vec<SocketAddr>)>>,
}

impl Resolvers {
    /// Those of a file; it need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read: Mutex::new(None),
        }
    }

    /// The servers now. One `fstat` while the file stays the same. Where there is no
    /// file, the local host, as for the C library.
    ///
    /// # Errors
    /// The file is there but cannot be read.
    pub fn servers(&self) -> io::Result<Vec<SocketAddr>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(parse("")),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        let stamp = Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, servers)) = &*read
            && *known == stamp
        {
            return Ok(servers.clone());
        }
        let mut text = Vec::new();
        file.take(FILE_BYTES).read_to_end(&mut text)?;
        let servers = parse(&String::from_utf8_lossy(&text));
        *read = Some((stamp, servers.clone()));
        Ok(servers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<String> {
        parse(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let text = "# nameserver 9.9.9.9\n; nameserver 9.9.9.9\nsearch example.com\n\
                    nameserver 192.0.2.1 # first\n nameserver 9.9.9.9\nnameserver\t2001:db8::1\n\
                    nameserver fe80::1%eth0\nnameserver nonsense\nnameserver\nnameserverx 9.9.9.9\n\
                    options edns0\nnameserver 192.0.2.3\r\nnameserver 192.0.2.4\n";
        assert_eq!(
            parsed(text),
            ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"]
        );
    }

    #[test]
    fn without_servers_the_local_host_is_asked() {
        assert_eq!(parsed(""), ["127.0.0.1:53"]);
        assert_eq!(parsed("search example.com\n"), ["127.0.0.1:53"]);
    }

    #[test]
    fn a_file_that_changes_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("resolv.conf");
        let resolvers = Resolvers::new(&path);
        let servers = || resolvers.servers().expect("readable");
        assert_eq!(servers(), parse(""));
        std::fs::write(&path, "nameserver 192.0.2.1\n").expect("written");
        assert_eq!(servers(), parse("nameserver 192.0.2.1"));
        assert_eq!(servers(), parse("nameserver 192.0.2.1"));
        let new = directory.path().join("new");
        std::fs::write(&new, "nameserver 192.0.2.2\n").expect("written");
        std::fs::rename(&new, &path).expect("renamed");
        assert_eq!(servers(), parse("nameserver 192.0.2.2"));
    }
}
