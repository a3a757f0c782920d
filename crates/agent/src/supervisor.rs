//! The agent as a whole: reaches engine and control plane, and follows both for as long as it lives.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::api::{Api, ApiError};
use crate::connection::{Connection, Ended};
use crate::engine::Engine;
use crate::health::HealthBoard;
use crate::options::Options;
use crate::state::{StateError, StateFile};
use crate::tasks::Tasks;
use crate::{events, health, instance, reports};
use bulkhead_types::Chain;

/// Runs the agent until `stop` turns true. Containers are left running.
///
/// The engine and the control plane may come, go and come back at any time; the agent waits for them.
///
/// # Errors
/// Where the state file cannot be read or written: without it tasks could be started twice.
pub async fn run(options: Options, mut stop: watch::Receiver<bool>) -> Result<(), StateError> {
    let state = Arc::new(StateFile::open(&options.data_directory)?);
    let options = Arc::new(options);
    // an error means that the sender is gone, which is an order to stop as well
    let stopped = async {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    tokio::select! {
        () = stopped => Ok(()),
        result = work(options, state) => result,
    }
}

/// Never returns unless it fails. All that it starts ends with it.
async fn work(options: Arc<Options>, state: Arc<StateFile>) -> Result<(), StateError> {
    let engine = reach_engine(&options).await;
    let api = Api::new(&options.endpoint, &options.region, options.credentials.clone());
    let (reports, queue) = mpsc::unbounded_channel();
    let health = Arc::<HealthBoard>::default();
    let tasks = Tasks::new(
        engine.clone(),
        Arc::clone(&options),
        Arc::clone(&state),
        reports,
        Arc::clone(&health),
    );
    let tasks = Arc::new(tasks);
    let mut helpers = JoinSet::new();
    helpers.spawn(reports::send_all(api.clone(), Arc::clone(&state), queue));
    helpers.spawn(health::publish(api.clone(), Arc::clone(&options), Arc::clone(&state), health));
    for arn in state.read(|state| state.tasks.keys().cloned().collect::<Vec<_>>()) {
        tasks.start(&arn);
    }
    helpers.spawn(events::follow(engine.clone(), Arc::clone(&tasks)));
    let mut pause = FIRST_PAUSE;
    loop {
        let started = tokio::time::Instant::now();
        let ended = serve_once(&api, &engine, &tasks).await;
        match ended {
            Ended::State(error) => return Err(error),
            Ended::Inactive(_) => state.change(|state| state.container_instance_arn = None)?,
            _ => {}
        }
        tracing::warn!(reason = %ended, "not connected to the control plane");
        // a connection that held was no failure
        pause = if started.elapsed() > LONGEST_PAUSE { FIRST_PAUSE } else { pause };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Registers, connects and takes orders until the connection ends.
async fn serve_once(api: &Api, engine: &Engine, tasks: &Arc<Tasks>) -> Ended {
    let arn = match register(api, engine, tasks).await {
        Ok(arn) => arn,
        Err(ended) => return ended,
    };
    let discovered = api
        .call(
            "DiscoverPollEndpoint",
            &json!({"containerInstance": arn, "cluster": tasks.options.cluster}),
        )
        .await;
    let endpoint = match discovered {
        Ok(answer) => answer["endpoint"].as_str().unwrap_or(&tasks.options.endpoint).to_owned(),
        Err(error) => return Ended::Connect(Chain(&error).to_string()),
    };
    match Connection::open(&api.at(&endpoint), &tasks.options.cluster, &arn).await {
        Ok(connection) => {
            tracing::info!(instance = arn, "connected to the control plane");
            connection.serve(|payload| tasks.accept(payload)).await
        }
        Err(ended) => ended,
    }
}

/// Tells the control plane what this machine is; answers with the ARN by which it is known.
async fn register(api: &Api, engine: &Engine, tasks: &Tasks) -> Result<String, Ended> {
    let options = &tasks.options;
    let info = engine.info().await.map_err(|error| Ended::Connect(Chain(&error).to_string()))?;
    let (id, known_as) =
        tasks.state.read(|state| (state.instance_id.clone(), state.container_instance_arn.clone()));
    let request = instance::registration(options, &id, known_as.as_deref(), &info);
    let answer = match api.call("RegisterContainerInstance", &request).await {
        Err(ApiError::Refused { code, .. })
            if code == "ClusterNotFoundException" && options.cluster == "default" =>
        {
            // as ECS's agent does for the cluster that nobody named
            let create = json!({"clusterName": options.cluster});
            api.call("CreateCluster", &create)
                .await
                .map_err(|error| Ended::Connect(Chain(&error).to_string()))?;
            api.call("RegisterContainerInstance", &request).await
        }
        Err(ApiError::Refused { code, message })
            if known_as.is_some() && code == "InvalidParameterException" =>
        {
            return Err(Ended::Inactive(message));
        }
        other => other,
    };
    let answer: Value = answer.map_err(|error| Ended::Connect(Chain(&error).to_string()))?;
    let arn = answer["containerInstance"]["containerInstanceArn"].as_str();
    let arn = arn.ok_or_else(|| Ended::Connect("the registration has no ARN".into()))?.to_owned();
    if known_as.as_ref() != Some(&arn) {
        tasks.state.change(|state| state.container_instance_arn = Some(arn.clone()))?;
    }
    Ok(arn)
}

async fn reach_engine(options: &Options) -> Engine {
    let mut pause = FIRST_PAUSE;
    loop {
        let engine = Engine::at(&options.docker_socket);
        let Err(error) = engine.info().await else { return engine };
        tracing::info!(error = %Chain(&error), socket = %options.docker_socket.display(), "waiting for the engine");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
