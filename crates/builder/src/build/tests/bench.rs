use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bulkhead_image::{Content, Layer, StoredImage};
use bulkhead_types::image::{Descriptor, ImageConfig};
use bulkhead_types::{BuildStep, Digest, Reference, Stream};
use rustix::fs::{OFlags, Stat};
use tokio::sync::watch;

use crate::state::State;
use crate::view::View;
use crate::{
    BuildError, BuildRequest, Cache, CachedStep, DockerfileSource, Event, Events, Executor,
    Fetched, Pull, Warning, build,
};

/// A context, a store of images, and an executor that writes files instead of running programs.
pub(super) struct Bench {
    directory: tempfile::TempDir,
    pub(super) content: Arc<Content>,
    cache: Steps,
    executor: Writer,
    told: Mutex<Vec<Event>>,
    pub(super) dockerfile: String,
    pub(super) arguments: Vec<(&'static str, &'static str)>,
    pub(super) contexts: Vec<(&'static str, &'static str)>,
    pub(super) target: Option<&'static str>,
    pub(super) no_cache: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["context", "scratch"] {
            std::fs::create_dir(directory.path().join(name)).expect("makes it");
        }
        let content = Content::open(&directory.path().join("content")).expect("opens");
        let content = Arc::new(content);
        let executor = Writer {
            content: Arc::clone(&content),
            images: BTreeMap::new(),
            runs: Mutex::default(),
            met: watch::Sender::default(),
            active: AtomicUsize::default(),
            most_active: AtomicUsize::default(),
        };
        Self {
            directory,
            content,
            cache: Steps::default(),
            executor,
            told: Mutex::default(),
            dockerfile: "Dockerfile".to_owned(),
            arguments: Vec::new(),
            contexts: Vec::new(),
            target: None,
            no_cache: false,
        }
    }

    pub(super) fn context(&self, path: &str) -> PathBuf {
        self.directory.path().join("context").join(path)
    }

    pub(super) fn put(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.context(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("makes it");
        std::fs::write(&path, text).expect("writes it");
    }

    pub(super) fn chmod(&self, path: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.context(path), mode).expect("chmod");
    }

    /// Makes an image of one layer. A name that ends in `/` is a directory of mode 1777, a text
    /// that starts with `-> ` a link.
    pub(super) fn image(&mut self, name: &str, files: &[(&str, &str)]) {
        self.image_with(name, files, |_| {});
    }

    pub(super) fn image_with(
        &mut self,
        name: &str,
        files: &[(&str, &str)],
        change: impl FnOnce(&mut ImageConfig),
    ) {
        let layer = self.content.import_layer(&mut &archive(files)[..]).expect("a layer");
        let mut state = State::scratch();
        let step =
            CachedStep { layer: Some((layer.descriptor, layer.diff_id)), created: "then".into() };
        state.record("import".to_owned(), &step, state.chain);
        change(&mut state.image);
        let image = self.content.write_image(&state.image, &state.layers).expect("an image");
        self.executor.images.insert(name.parse().expect(name), image);
    }

    pub(super) async fn build(&self) -> Result<StoredImage, BuildError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let request = BuildRequest {
            context: bulkhead_sys::path::open_host(&self.context(""), flags).expect("opens"),
            scratch: bulkhead_sys::path::open_host(&self.directory.path().join("scratch"), flags)
                .expect("opens"),
            dockerfile: DockerfileSource::InContext(self.dockerfile.clone()),
            arguments: self.arguments.iter().map(own).map(|(n, v)| (n, Some(v))).collect(),
            labels: BTreeMap::new(),
            target: self.target.map(str::to_owned),
            no_cache: self.no_cache,
            pull: false,
            network: None,
            contexts: self.contexts.iter().map(own).collect(),
        };
        let (events, mut receiver) = Events::channel();
        let building = async {
            let content = Arc::clone(&self.content);
            let built = build(request, content, &self.cache, &self.executor, &events).await;
            drop(events);
            built
        };
        let receiving = async {
            while let Some(event) = receiver.recv().await {
                self.told.lock().expect("no panic").push(event);
            }
        };
        tokio::join!(building, receiving).0
    }

    /// What was run since this was last asked.
    pub(super) fn runs(&self) -> Vec<BuildStep> {
        std::mem::take(&mut self.executor.runs.lock().expect("no panic"))
    }

    /// How many steps are being done, and how many were at once at the most.
    pub(super) fn active(&self) -> (usize, usize) {
        let count = |steps: &AtomicUsize| steps.load(Ordering::SeqCst);
        (count(&self.executor.active), count(&self.executor.most_active))
    }

    /// What was told since this was last asked, an event in a line, without digests.
    pub(super) fn told(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.told.lock().expect("no panic"));
        let mut names = BTreeMap::new();
        let show = |event| match event {
            Event::Planned(vertices) => {
                let count = vertices.len();
                names.extend(vertices.into_iter().map(|vertex| (vertex.digest, vertex.name)));
                format!("planned {count}")
            }
            Event::Triggered { triggers, .. } => {
                let count = triggers.len();
                names.extend(triggers.into_iter().map(|vertex| (vertex.digest, vertex.name)));
                format!("triggered {count}")
            }
            Event::Started(vertex) => format!("started {}", names[&vertex]),
            Event::Running { vertex, .. } => format!("running {}", names[&vertex]),
            Event::CacheHit(vertex) => format!("cached {}", names[&vertex]),
            Event::Progress { vertex, progress } => {
                format!("progress {}: {}", names[&vertex], progress.status)
            }
            Event::Log { vertex, text, .. } => format!("log {}: {text}", names[&vertex]),
            Event::Completed { vertex, .. } => format!("completed {}", names[&vertex]),
            Event::Failed(vertex) => format!("failed {}", names[&vertex]),
            Event::Warning(Warning::Dockerfile(text)) => format!("warning {text}"),
            Event::Warning(Warning::UnusedArguments(names)) => {
                format!("unused {}", names.join(" "))
            }
        };
        events.into_iter().map(show).collect()
    }

    pub(super) fn config(&self, image: &StoredImage) -> ImageConfig {
        self.content.config(image.id).expect("a configuration")
    }

    fn view(&self, layers: &[Digest]) -> View {
        View::new(layers.iter().map(|id| self.content.layer(*id).expect("a layer")).collect())
    }

    pub(super) fn text_in(&self, layers: &[Digest], path: &str) -> Option<String> {
        let bytes = self.view(layers).read_small(Path::new(path), 1 << 20).expect(path)?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    pub(super) fn text(&self, image: &StoredImage, path: &str) -> Option<String> {
        self.text_in(&self.config(image).rootfs.diff_ids, path)
    }

    pub(super) fn stat(&self, image: &StoredImage, path: &str) -> Option<Stat> {
        let view = self.view(&self.config(image).rootfs.diff_ids);
        view.exact(Path::new(path)).expect(path).map(|node| node.stat)
    }

    pub(super) fn open(&self, image: &StoredImage, path: &str) -> std::fs::File {
        let view = self.view(&self.config(image).rootfs.diff_ids);
        let node = view.exact(Path::new(path)).expect(path).expect("it is there");
        node.open_file().expect("opens").expect("a file")
    }

    pub(super) fn attributes(&self, image: &StoredImage, path: &str) -> crate::view::Attributes {
        let view = self.view(&self.config(image).rootfs.diff_ids);
        let node = view.exact(Path::new(path)).expect(path).expect("it is there");
        node.attributes().expect("they can be read")
    }

    /// Mode and owner, as `100644 0:0`.
    pub(super) fn mode(&self, image: &StoredImage, path: &str) -> String {
        let stat = self.stat(image, path).unwrap_or_else(|| panic!("{path} is not there"));
        format!("{:o} {}:{}", stat.st_mode, stat.st_uid, stat.st_gid)
    }
}

pub(super) fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(1000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_mode(0o644);
        if let Some(target) = text.strip_prefix("-> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, name, target).expect("appends");
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o1777);
            header.set_uid(5);
            builder.append_data(&mut header, name, &b""[..]).expect("appends");
        } else {
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).expect("appends");
        }
    }
    builder.into_inner().expect("an archive")
}

#[derive(Default)]
struct Steps(Mutex<BTreeMap<Digest, CachedStep>>);

impl Cache for Steps {
    fn find(&self, key: Digest) -> Option<CachedStep> {
        self.0.lock().expect("no panic").get(&key).cloned()
    }

    fn remember<'a>(
        &'a self,
        key: Digest,
        step: CachedStep,
        _description: String,
        _parent: Option<Digest>,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        self.0.lock().expect("no panic").insert(key, step);
        Box::pin(std::future::ready(()))
    }
}

/// `write PATH TEXT` makes a layer of that file, `remove PATH` one without it, `fail` fails,
/// `meet NAME OTHER` waits for the step that says `meet OTHER NAME`, `hang` never ends, and everything
/// else changes nothing.
struct Writer {
    content: Arc<Content>,
    images: BTreeMap<Reference, StoredImage>,
    runs: Mutex<Vec<BuildStep>>,
    /// Names of the steps that have begun to meet.
    met: watch::Sender<BTreeSet<String>>,
    /// Steps that are being done.
    active: AtomicUsize,
    most_active: AtomicUsize,
}

/// A step that is being done, or was until it was given up.
struct Active<'a>(&'a Writer);

impl<'a> Active<'a> {
    fn begin(writer: &'a Writer) -> Self {
        let now = writer.active.fetch_add(1, Ordering::SeqCst) + 1;
        writer.most_active.fetch_max(now, Ordering::SeqCst);
        Self(writer)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Writer {
    fn arrive(&self, name: &str) {
        self.met.send_modify(|met| {
            met.insert(name.to_owned());
        });
    }
}

impl Executor for Writer {
    async fn image(
        &self,
        reference: &Reference,
        _pull: Pull,
        _vertex: Digest,
        _events: &Events,
    ) -> Result<StoredImage, BuildError> {
        let missing = || {
            let name = reference.familiar();
            let message = format!("manifest for {name} not found: manifest unknown");
            BuildError::Executor(message.into())
        };
        self.images.get(reference).cloned().ok_or_else(missing)
    }

    async fn fetch(
        &self,
        address: &str,
        mut to: std::fs::File,
        _vertex: Digest,
        _events: &Events,
    ) -> Result<Fetched, BuildError> {
        if address.contains("missing") {
            return Err(BuildError::Executor(format!("{address} answered 404 Not Found").into()));
        }
        std::io::Write::write_all(&mut to, address.as_bytes()).expect("writes");
        let modified = Some(bulkhead_types::Timestamp::from_second(1000).expect("a time"));
        Ok(Fetched { digest: Digest::of(address.as_bytes()), modified })
    }

    async fn run(
        &self,
        step: BuildStep,
        vertex: Digest,
        events: &Events,
    ) -> Result<Option<Layer>, BuildError> {
        let text = step.arguments.last().cloned().unwrap_or_default();
        self.runs.lock().expect("no panic").push(step);
        let _active = Active::begin(self);
        let words: Vec<_> = text.split_whitespace().collect();
        let bytes = match words[..] {
            ["fail"] => {
                return Err(BuildError::Failed { command: "its own".to_owned(), code: 7 });
            }
            ["meet", name, other] => {
                self.arrive(name);
                let mut met = self.met.subscribe();
                met.wait_for(|met| met.contains(other)).await.expect("the bench is there");
                return Ok(None);
            }
            ["hang", name] => {
                self.arrive(name);
                return std::future::pending().await;
            }
            ["say", ..] => {
                let text = "said\n".to_owned();
                events.send(Event::Log { vertex, stream: Stream::Stdout, text }).await;
                return Ok(None);
            }
            ["write", path, text] => archive(&[(path, text)]),
            ["remove", path] => {
                let path = Path::new(path);
                let name = format!(".wh.{}", path.file_name().expect("a name").display());
                archive(&[(path.with_file_name(name).to_str().expect("text"), "")])
            }
            _ => return Ok(None),
        };
        let layer: Layer = self.content.import_layer(&mut &bytes[..])?;
        let _: &Descriptor = &layer.descriptor;
        Ok(Some(layer))
    }
}
