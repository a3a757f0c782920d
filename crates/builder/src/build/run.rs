use bulkhead_image::Layer;
use bulkhead_types::{BuildStep, StepNetwork};

use super::{Build, now};
use crate::BuildError;
use crate::cache::{self, CachedStep};
use crate::event::{Event, Vertex};
use crate::instruction::{Command, Network, Run};
use crate::parse::HeredocMark;
use crate::request::Executor;
use crate::state::State;

impl<E: Executor> Build<'_, E> {
    pub(super) async fn run(
        &self,
        vertex: &Vertex,
        state: &mut State,
        run: &Run,
        line: usize,
    ) -> Result<(), BuildError> {
        let refused = |message: &str| BuildError::Step { line, message: message.to_owned() };
        let host = self.request.network.as_deref() == Some("host");
        let (network, network_key) = match run.network {
            Network::Default => {
                (StepNetwork::OfBuild, self.request.network.clone().unwrap_or_default())
            }
            Network::None => (StepNetwork::None, "none".to_owned()),
            Network::Host if host => (StepNetwork::Host, "host".to_owned()),
            Network::Host => {
                return Err(refused(
                    "RUN --network=host is not allowed: the build must be started with \
                     --network=host",
                ));
            }
        };
        let (arguments, script) = command(state, run).map_err(|message| refused(&message))?;

        let visible = state.visible_arguments();
        let history = match &visible[..] {
            [] => format!("RUN {}", arguments.join(" ")),
            visible => {
                let count = visible.len();
                format!("RUN |{count} {} {}", visible.join(" "), arguments.join(" "))
            }
        };
        let parts = [
            state.chain.hex(),
            "RUN".to_owned(),
            network_key,
            script.clone().unwrap_or_default(),
            visible.len().to_string(),
        ];
        let all = parts.iter().chain(&visible).chain(&arguments).map(String::as_str);
        let key = cache::key(all);
        if let Some(step) = self.cached(key) {
            self.done(vertex, state, key, step, true, history).await;
            return Ok(());
        }

        self.events.send(Event::Running { vertex: vertex.digest, container: key }).await;
        let mut layers = state.image.rootfs.diff_ids.clone();
        layers.extend(self.volume_layers(state, line).await?);
        if let Some(script) = script {
            layers.push(self.script_layer(script).await?.diff_id);
        }
        let config = &state.image.config;
        let step = BuildStep {
            arguments: arguments.clone(),
            environment: self.environment(state, visible),
            working_directory: match config.working_dir.as_str() {
                "" => "/".to_owned(),
                directory => directory.to_owned(),
            },
            user: config.user.clone(),
            network,
            layers,
            base: state.made(),
        };
        let ran = self.executor.run(step, vertex.digest, self.events).await;
        let layer = ran.map_err(|error| match error {
            // The shell's line, and not a script's path.
            BuildError::Failed { code, .. } => {
                BuildError::Failed { command: arguments.join(" "), code }
            }
            other => other,
        })?;
        let layer = layer.map(|Layer { descriptor, diff_id }| (descriptor, diff_id));
        let step = CachedStep { layer, created: now() };
        self.done(vertex, state, key, step, false, history).await;
        Ok(())
    }

    /// ENV, then arguments, then proxies, which are neither in the image nor in the key.
    fn environment(&self, state: &State, visible: Vec<String>) -> Vec<String> {
        let mut environment = state.image.config.env.clone().unwrap_or_default();
        environment.extend(visible);
        let set = |environment: &[String], name: &str| {
            environment.iter().any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
        };
        for (name, value) in &self.request.arguments {
            let Some(value) = value else { continue };
            if is_predefined(name) && !set(&environment, name) {
                environment.push(format!("{name}={value}"));
            }
        }
        environment
    }
}

/// The arguments to execute; and a script that must be at `SCRIPT`, for a here-document that
/// names its own interpreter.
fn command(state: &State, run: &Run) -> Result<(Vec<String>, Option<String>), String> {
    let text = match &run.command {
        Command::Exec(arguments) => return Ok((arguments.clone(), None)),
        Command::Shell(text) => text,
    };
    let shell = |text: String| state.shell().into_iter().chain([text]).collect();
    let [first, ..] = &run.heredocs[..] else { return Ok((shell(text.clone()), None)) };
    if HeredocMark::read(text)?.is_none() {
        // The shell is to read the documents itself: `RUN cat <<EOF > /x`.
        let mut whole = text.clone();
        for document in &run.heredocs {
            whole += &format!("\n{}{}", document.content, document.mark.name);
        }
        return Ok((shell(whole), None));
    }
    if first.content.trim_start_matches('\t').starts_with("#!") {
        return Ok((vec![format!("/{SCRIPT}")], Some(first.file())));
    }
    Ok((shell(first.file()), None))
}

/// `HTTP_PROXY` and its like need no ARG (BuildKit's reference, "Predefined ARGs").
pub(super) fn is_predefined(name: &str) -> bool {
    ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"]
        .iter()
        .any(|proxy| *proxy == name || proxy.to_ascii_lowercase() == name)
}

/// Where a script lies while it runs: in a layer of its own, which is not part of the image.
pub(super) const SCRIPT: &str = ".bulkhead-build-script";
