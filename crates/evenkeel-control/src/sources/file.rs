//! The YAML file, followed when it changes. By looking at it twice a second and not by the kernel's
//! watches: Kubernetes swaps a symlink to a whole folder, on which a watch of the file goes blind,
//! and network file systems tell nothing. Content is compared, not times, which some writers keep.
//!
//! What can't be read or used is reported, and the last good content stays in use. A file that is
//! written in place is read half at times, or empty; so new content counts when two looks agree.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    config::{CONFIG_BYTES_MAX, Config, ConfigError},
    control::Control,
};

/// How often the file is looked at; a change counts after one to two of these.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The file's name among the sources.
pub const SOURCE_NAME: &str = "file";

/// A file that is followed.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    default_namespace: String,
    /// What was read last and has been looked at, good or bad.
    used: Vec<u8>,
    /// What was new at the last look, and is not used yet.
    new: Option<Vec<u8>>,
}

/// What a look at the file came to.
#[derive(Debug, PartialEq)]
pub enum Look {
    /// It is as it was.
    Same,
    /// It is different, and perhaps still being written.
    Changing,
    /// This is its new content.
    New(Config),
    /// It can't be read or used.
    Bad(String),
}

impl FileSource {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// It can't be read or used: at the start there is no last good content.
    pub fn open(path: &Path, default_namespace: &str) -> Result<(Self, Config), ConfigError> {
        let used = read(path).map_err(|e| ConfigError::Other(unreadable(path, &e)))?;
        let config = parse(&used, path, default_namespace)?;
        let default_namespace = default_namespace.to_owned();
        Ok((Self { path: path.to_owned(), default_namespace, used, new: None }, config))
    }

    /// Looks at the file once. It blocks for as long as the file system does.
    pub fn look(&mut self) -> Look {
        let content = match read(&self.path) {
            Ok(content) => content,
            Err(error) => {
                self.new = None;
                return Look::Bad(unreadable(&self.path, &error));
            }
        };
        if content == self.used {
            self.new = None;
            return Look::Same;
        }
        if self.new.as_ref() != Some(&content) {
            self.new = Some(content);
            return Look::Changing;
        }
        self.new = None;
        let parsed = parse(&content, &self.path, &self.default_namespace);
        self.used = content;
        match parsed {
            Ok(config) => Look::New(config),
            Err(error) => Look::Bad(error.to_string()),
        }
    }

    /// Follows the file for ever. What is bad stays reported until the file is good again.
    pub async fn run(mut self, control: Control) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unusable: Option<String> = None;
        loop {
            ticks.tick().await;
            // The runtime's threads are not for waiting.
            let looked = tokio::task::spawn_blocking(move || {
                let look = self.look();
                (self, look)
            });
            let Ok((source, look)) = looked.await else { return };
            self = source;
            match look {
                Look::New(config) => {
                    unusable = None;
                    control.configure(&config);
                }
                Look::Bad(error) => {
                    control.source(SOURCE_NAME, Err(error.clone()));
                    unusable = Some(error);
                    continue;
                }
                Look::Changing => continue,
                Look::Same if unusable.as_ref().is_some_and(|_| !self.is_good()) => continue,
                Look::Same => unusable = None,
            }
            control.source(SOURCE_NAME, Ok(()));
        }
    }

    /// Whether the content that was looked at last can be used.
    fn is_good(&self) -> bool {
        parse(&self.used, &self.path, &self.default_namespace).is_ok()
    }
}

fn parse(content: &[u8], path: &Path, default_namespace: &str) -> Result<Config, ConfigError> {
    let file = path.display().to_string();
    let text = std::str::from_utf8(content).map_err(|error| {
        let at = error.valid_up_to();
        ConfigError::Other(format!("{file}: expected UTF-8, got other bytes from byte {at} on"))
    })?;
    Config::from_yaml(text, &file, default_namespace)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}; expected a YAML file that this process may read", path.display())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    const ONE: &str = "services: [{name: a, endpoints: [{address: \"127.0.0.1:1\"}]}]";
    const TWO: &str = "services: [{name: a, endpoints: [{address: \"127.0.0.1:2\"}]}]";

    /// A folder of its own for each test, gone with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("evenkeel-control-{}-{:x}", std::process::id(), fastrand::u64(..));
            let folder = std::env::temp_dir().join(name);
            fs::create_dir(&folder).expect("a new folder");
            Self(folder)
        }

        fn file(&self) -> PathBuf {
            self.0.join("grpclb.yaml")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("its own folder");
        }
    }

    fn config(yaml: &str) -> Config {
        Config::from_yaml(yaml, "test", "default").expect("good")
    }

    fn open(folder: &Folder) -> FileSource {
        fs::write(folder.file(), ONE).expect("written");
        let (source, first) = FileSource::open(&folder.file(), "default").expect("good");
        assert_eq!(first, config(ONE));
        source
    }

    #[test]
    fn what_is_written_in_place_counts_when_it_stays() {
        let folder = Folder::new();
        let mut source = open(&folder);
        assert_eq!(source.look(), Look::Same);
        fs::write(folder.file(), &TWO[..40]).expect("written");
        assert_eq!(source.look(), Look::Changing, "half of it");
        fs::write(folder.file(), TWO).expect("written");
        assert_eq!(source.look(), Look::Changing);
        assert_eq!(source.look(), Look::New(config(TWO)));
        assert_eq!(source.look(), Look::Same);
    }

    #[test]
    fn a_folder_that_is_swapped_is_seen() {
        let folder = Folder::new();
        for (name, text) in [("one", ONE), ("two", TWO)] {
            fs::create_dir(folder.0.join(name)).expect("a folder");
            fs::write(folder.0.join(name).join("grpclb.yaml"), text).expect("written");
        }
        symlink("one", folder.0.join("data")).expect("a link");
        let path = folder.0.join("data/grpclb.yaml");
        let (mut source, _) = FileSource::open(&path, "default").expect("good");
        symlink("two", folder.0.join("new")).expect("a link");
        fs::rename(folder.0.join("new"), folder.0.join("data")).expect("swapped");
        assert_eq!(source.look(), Look::Changing);
        assert_eq!(source.look(), Look::New(config(TWO)));
    }

    #[test]
    fn a_bad_file_is_reported_and_a_good_one_after_it_is_taken() {
        let folder = Folder::new();
        let mut source = open(&folder);
        fs::write(folder.file(), "services: [{name: A}]").expect("written");
        assert_eq!(source.look(), Look::Changing);
        let Look::Bad(error) = source.look() else { panic!("it is bad") };
        assert!(error.contains("grpclb.yaml:1:") && error.contains("lower-case"), "{error}");
        assert!(!source.is_good());
        fs::remove_file(folder.file()).expect("removed");
        let Look::Bad(error) = source.look() else { panic!("it is gone") };
        assert!(error.contains("expected a YAML file"), "{error}");
        fs::write(folder.file(), ONE).expect("written");
        assert_eq!(source.look(), Look::Changing);
        assert_eq!(source.look(), Look::New(config(ONE)));
        fs::write(folder.file(), b"\xff\xfe").expect("written");
        source.look();
        assert!(matches!(source.look(), Look::Bad(error) if error.contains("expected UTF-8")));
    }

    #[test]
    fn without_a_good_file_it_does_not_start() {
        let folder = Folder::new();
        let error = FileSource::open(&folder.file(), "default").expect_err("not there");
        assert!(error.to_string().contains("grpclb.yaml"), "{error}");
    }
}
