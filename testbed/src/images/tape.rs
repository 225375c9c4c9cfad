//! Tar archives (POSIX.1-1988 ustar), as far as images need them: folders, files and symbolic links of root, of no age.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// The field of a size has eleven octal digits.
const LARGEST: u64 = 0o77_777_777_777;

/// An archive that is being written.
pub(super) struct Tape<W> {
    out: W,
}

impl<W: Write> Tape<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out }
    }

    pub(super) fn folder(&mut self, name: &str, mode: u32) -> io::Result<()> {
        self.header(name, b'5', mode, 0, "")
    }

    pub(super) fn link(&mut self, name: &str, target: &str) -> io::Result<()> {
        self.header(name, b'2', 0o777, 0, target)
    }

    /// A file of `size` bytes, which `content` must have.
    pub(super) fn file(&mut self, name: &str, mode: u32, size: u64, mut content: impl Read) -> io::Result<()> {
        self.header(name, b'0', mode, size, "")?;
        let copied = io::copy(&mut (&mut content).take(size), &mut self.out)?;
        if copied != size {
            return Err(io::Error::other(format!("{name} has {copied} bytes, not {size}")));
        }
        let beyond = (size % BLOCK as u64) as usize;
        if beyond > 0 {
            self.out.write_all(&[0; BLOCK][beyond..])?;
        }
        Ok(())
    }

    /// The end: two empty blocks.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }

    fn header(&mut self, name: &str, kind: u8, mode: u32, size: u64, target: &str) -> io::Result<()> {
        if name.len() > 100 || target.len() > 100 || size > LARGEST {
            return Err(io::Error::other(format!("{name}: too long for an archive of this kind")));
        }
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        // The sum is taken with blanks in its own place.
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&block)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let mut bytes = vec![];
        let mut tape = Tape::new(&mut bytes);
        tape.folder("bin/", 0o755).expect("written");
        tape.file("bin/hello", 0o755, 5, &b"hello"[..]).expect("written");
        tape.link("bin/again", "hello").expect("written");
        tape.finish().expect("written");
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut tar = Command::new("tar");
        let tar = tar.args(["--utc", "-tvf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut tar = tar.expect("tar is there");
        tar.stdin.take().expect("piped").write_all(&bytes).expect("written");
        let said = String::from_utf8(tar.wait_with_output().expect("ended").stdout).expect("text");
        let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][0], "drwxr-xr-x");
        assert_eq!((lines[1][0], lines[1][2], lines[1][5]), ("-rwxr-xr-x", "5", "bin/hello"));
        assert_eq!(lines[2][5..], ["bin/again", "->", "hello"]);
    }

    #[test]
    fn a_file_that_is_shorter_than_it_says_is_an_error() {
        let error = Tape::new(vec![]).file("x", 0o644, 9, &b"short"[..]).expect_err("it is");
        assert!(error.to_string().contains("5 bytes, not 9"), "{error}");
    }
}
