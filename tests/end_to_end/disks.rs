//! A disk of a test's own: an ext4 file system in a file, which can be filled, and shut down as a power cut would.
//!
//! Needs root, a loop device, `mkfs.ext4` and `perl`: where there is no [`Disk::new`], a test says so and does without.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{process::Folder, wait::until};

/// How much of its journal the file system may write in the cut: all, or nothing.
#[derive(Debug, Clone, Copy)]
pub enum Cut {
    FlushingJournal = 1,
    AtOnce = 2,
}

/// Mounted for as long as this lives.
pub struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

fn succeeds(program: &str, words: &[&str]) -> bool {
    let quiet = Command::new(program).args(words).stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Disk {
    /// For the data folder of `folder`; none where the machine does not let us.
    pub fn new(folder: &Folder, megabytes: u64) -> Option<Self> {
        let (image, mounted) = (folder.path("disk.img"), folder.path("data"));
        fs::create_dir_all(&mounted).unwrap();
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        let disk = Self { image, mounted };
        let is_usable = succeeds("perl", &["-e", "1"])
            && succeeds("mkfs.ext4", &["-q", "-F", "-m", "0", text(&disk.image)])
            && disk.mount();
        if !is_usable {
            let _ = fs::remove_file(&disk.image);
        }
        is_usable.then_some(disk)
    }

    fn mount(&self) -> bool {
        succeeds("mount", &["-o", "loop", text(&self.image), text(&self.mounted)])
    }

    /// EXT4_IOC_SHUTDOWN: from now on nothing reaches the disk.
    pub fn cut(&self, how: Cut) {
        let program =
            "open(D, '<', $ARGV[0]) or die; my $how = pack('L', $ARGV[1]); ioctl(D, 0x8004587D, $how) or die;";
        let number = (how as u32).to_string();
        assert!(succeeds("perl", &["-e", program, text(&self.mounted), &number]), "not shut down: {how:?}");
    }

    /// Mounts the disk again after a cut. Nothing may have a file of it open.
    pub async fn start_again(&self) {
        until("the file system is let go", async || succeeds("umount", &[text(&self.mounted)]).then_some(())).await;
        assert!(self.mount(), "the file system does not mount again");
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = File::options().append(true).create(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096, 64] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        let _ = file.sync_all();
    }

    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = succeeds("umount", &[text(&self.mounted)]);
    }
}
