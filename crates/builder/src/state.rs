//! What an image is after each instruction: configuration, history, layers, arguments.

mod metadata;

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_types::Digest;
use bulkhead_types::image::{Config, Descriptor, History, ImageConfig, Platform, RootFs};

use crate::cache::{self, CachedStep};
use crate::expand::{self, Style};
pub(crate) use metadata::Scope;

/// A stage in the making.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) image: ImageConfig,
    /// The archives of `image.rootfs.diff_ids`, lowest first.
    pub(crate) layers: Vec<Descriptor>,
    /// Names everything that the stage came from and went through.
    pub(crate) chain: Digest,
    /// The key of the last step in the cache.
    pub(crate) step: Option<Digest>,
    /// Values of the ARG instructions so far; ENV of the same name hides one.
    pub(crate) arguments: BTreeMap<String, String>,
    /// Names of all ARG instructions so far, those of the stages below included.
    pub(crate) declared: BTreeSet<String>,
    /// A CMD below an ENTRYPOINT of this stage is the base's, and is dropped.
    pub(crate) has_own_command: bool,
    /// Bytes of all history lines of this build, which hold every value that was expanded.
    pub(crate) weight: usize,
    /// The image that this is as long as no instruction has changed it.
    pub(crate) base: Option<Digest>,
}

impl State {
    /// `FROM scratch`.
    pub(crate) fn scratch() -> Self {
        let platform = Platform::host();
        Self {
            image: ImageConfig {
                architecture: platform.architecture,
                os: platform.os,
                variant: platform.variant,
                created: None,
                author: String::new(),
                config: Config { env: Some(vec![DEFAULT_PATH.to_owned()]), ..Config::default() },
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
                history: Vec::new(),
            },
            layers: Vec::new(),
            chain: cache::key(["scratch"]),
            step: None,
            arguments: BTreeMap::new(),
            declared: BTreeSet::new(),
            has_own_command: false,
            weight: 0,
            base: None,
        }
    }

    /// `FROM image`. One without a PATH gets the default, which its next image has.
    pub(crate) fn on(id: Digest, mut image: ImageConfig, layers: Vec<Descriptor>) -> Self {
        let environment = image.config.env.get_or_insert_default();
        if !environment.iter().any(|pair| pair.starts_with("PATH=")) {
            environment.push(DEFAULT_PATH.to_owned());
        }
        let chain = cache::key(["image", &id.hex()]);
        Self { image, layers, chain, base: Some(id), ..Self::scratch() }
    }

    /// What the last step has made, as it is shown: an image's id as long as there is nothing more.
    pub(crate) fn made(&self) -> Digest {
        let is_image = |id: &Digest| self.chain == cache::key(["image", &id.hex()]);
        self.base.filter(is_image).unwrap_or(self.chain)
    }

    /// `FROM stage`: arguments end with their stage.
    pub(crate) fn next_stage(&self) -> Self {
        Self { arguments: BTreeMap::new(), has_own_command: false, ..self.clone() }
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        let environment = self.image.config.env.iter().flatten();
        let set = environment.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        set.map(|(_, value)| value.to_owned()).or_else(|| self.arguments.get(name).cloned())
    }

    pub(crate) fn expand(&self, text: &str, escape: char) -> Result<String, String> {
        expand::word(text, escape, &|name| self.variable(name)).map_err(|error| error.to_string())
    }

    /// Expands several words of one instruction, which together must stay within reason.
    pub(crate) fn expand_all(&self, words: &[String], escape: char) -> Result<Vec<String>, String> {
        let mut total = 0;
        let mut expanded = Vec::with_capacity(words.len());
        for word in words {
            let word = self.expand(word, escape)?;
            total += word.len();
            if total > HEAVIEST {
                return Err(too_heavy());
            }
            expanded.push(word);
        }
        Ok(expanded)
    }

    /// Whether the image still is one that every engine takes.
    pub(crate) fn check_weight(&self) -> Result<(), String> {
        let environment = self.image.config.env.as_ref().map_or(0, Vec::len);
        if self.weight > HEAVIEST || environment.max(self.arguments.len()) > MAX_VARIABLES {
            return Err(too_heavy());
        }
        Ok(())
    }

    pub(crate) fn expand_words(&self, text: &str, escape: char) -> Result<Vec<String>, String> {
        expand::words(text, escape, Style::default(), &|name| self.variable(name))
            .map_err(|error| error.to_string())
    }

    /// A here-document's body: quotes are text.
    pub(crate) fn expand_document(&self, text: &str, escape: char) -> Result<String, String> {
        let style = Style { ignore_quotes: true, ..Style::default() };
        expand::styled(text, escape, style, &|name| self.variable(name))
            .map_err(|error| error.to_string())
    }

    pub(crate) fn shell(&self) -> Vec<String> {
        let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
        self.image.config.shell.clone().unwrap_or_else(default)
    }

    /// Arguments as `NAME=value` that no ENV hides.
    pub(crate) fn visible_arguments(&self) -> Vec<String> {
        let set = |name: &str| {
            let environment = self.image.config.env.iter().flatten();
            environment.filter_map(|pair| pair.split_once('=')).any(|(key, _)| key == name)
        };
        let visible = self.arguments.iter().filter(|(name, _)| !set(name));
        visible.map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// Notes a step that is done.
    pub(crate) fn record(&mut self, created_by: String, step: &CachedStep, key: Digest) {
        self.base = None;
        self.step = Some(key);
        self.weight += created_by.len();
        let layer = step.layer.as_ref();
        let diff_id = layer.map(|(_, diff_id)| diff_id.hex()).unwrap_or_default();
        self.chain = cache::key([&key.hex()[..], &diff_id]);
        self.image.history.push(History {
            created: Some(step.created.clone()),
            created_by,
            empty_layer: layer.is_none(),
            ..History::default()
        });
        self.image.created = Some(step.created.clone());
        if let Some((descriptor, diff_id)) = layer {
            self.layers.push(descriptor.clone());
            self.image.rootfs.diff_ids.push(*diff_id);
        }
    }
}

/// `path` seen from `directory`, without `.` and `..`.
pub(crate) fn absolute(directory: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn too_heavy() -> String {
    format!(
        "the image's configuration would get too large: at most {HEAVIEST} bytes of instructions \
         after expansion, and {MAX_VARIABLES} variables"
    )
}

/// Bytes. Registries and engines take configurations of at most 4 MiB, in which an ENV stands
/// twice: in the history and as what it sets.
const HEAVIEST: usize = 3 << 19;

const MAX_VARIABLES: usize = 10_000;

/// What every stage begins with that has no PATH of its base's (moby:
/// builder/dockerfile/dispatchers.go; BuildKit: frontend/dockerfile/dockerfile2llb/convert.go).
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
