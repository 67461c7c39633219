//! Keeps the cameras running, a thread for each.

use crate::camera::Stop;
use crate::camera::source::{Failure, Output, Source};
use crate::camera::status::{Camera, Phase};
use crate::camera::{auto, command, rpicam, test_card, v4l2};
use crate::config;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Wait before the source is opened again: the first time, and at the longest.
pub(crate) const RETRY_DELAYS: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30));

/// How often a camera that is not there is looked for.
pub(crate) const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// A source that has delivered for so long starts at the shortest wait again.
pub(crate) const GOOD_RUN: Duration = Duration::from_secs(10);

/// The sources of all cameras, in their order.
pub(crate) fn sources(configs: &[config::Camera]) -> Vec<Box<dyn Source>> {
    let named = |config: &config::Camera| match &config.source {
        Some(config::Source::Device(path)) => Some(PathBuf::from(path)),
        _ => None,
    };
    let taken: Vec<PathBuf> = configs.iter().filter_map(named).collect();
    let (mut rpicams, mut found) = (0..configs.len(), 0..configs.len());
    let next = |numbers: &mut std::ops::Range<usize>| numbers.next().unwrap_or_default();
    let source = |config: &config::Camera| -> Box<dyn Source> {
        match &config.source {
            None => Box::new(auto::Auto::new(config, next(&mut found), taken.clone())),
            Some(config::Source::TestCard) => Box::new(test_card::TestCard),
            Some(config::Source::Command(command)) => {
                Box::new(command::Command::new(command.clone()))
            }
            Some(config::Source::Rpicam) => {
                Box::new(rpicam::Rpicam::new(config, next(&mut rpicams)))
            }
            Some(config::Source::Device(path)) => Box::new(v4l2::device::Device::new(path, config)),
        }
    };
    configs.iter().map(source).collect()
}

/// Cameras at work. Dropped, they stop.
pub struct Cameras {
    /// In the order of the configuration.
    pub all: Vec<Arc<Camera>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

impl Cameras {
    /// Starts a thread for each camera.
    pub fn start(configs: &[config::Camera]) -> std::io::Result<Cameras> {
        let stop = Arc::new(Stop::new()?);
        let mut cameras = Cameras { all: vec![], stop, threads: vec![] };
        for (config, source) in configs.iter().zip(sources(configs)) {
            let camera = Arc::new(Camera::new(config.clone()));
            cameras.all.push(camera.clone());
            let stop = cameras.stop.clone();
            let name = format!("camera {}", config.name);
            let thread = std::thread::Builder::new().name(name);
            cameras.threads.push(thread.spawn(move || keep_running(&camera, source, &stop))?);
        }
        Ok(cameras)
    }
}

impl Drop for Cameras {
    fn drop(&mut self) {
        self.stop.set();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Opens the source again and again, until `stop`.
pub(crate) fn keep_running(camera: &Arc<Camera>, mut source: Box<dyn Source>, stop: &Stop) {
    let mut wait = RETRY_DELAYS.0;
    while !stop.is_set() {
        let started = Instant::now();
        let frames = camera.state().frames;
        let failure = match source.run(&mut Output::new(camera.clone()), stop) {
            Ok(()) if stop.is_set() => break,
            Ok(()) => Failure::from("the source ended".to_string()),
            Err(failure) => failure,
        };
        camera.stream.interrupt();
        let mut state = camera.state();
        if started.elapsed() > GOOD_RUN && state.frames > frames {
            wait = RETRY_DELAYS.0;
        }
        let pause = if failure.gone { SEARCH_INTERVAL } else { wait };
        let again =
            state.last_error.as_ref() == Some(&failure.message) && state.phase == Phase::Failed;
        // The same trouble again and again fills no log.
        let level = if again { log::Level::Debug } else { log::Level::Error };
        let (name, message) = (&camera.config.name, &failure.message);
        match failure.gone {
            true => log::log!(level, "camera \"{name}\": {message} (waiting for it)"),
            false => {
                let seconds = pause.as_secs();
                log::log!(level, "camera \"{name}\": {message} (trying again in {seconds} s)");
            }
        }
        // Looking for a camera that is not there is no start.
        state.restarts += u64::from(!(failure.gone && again));
        state.phase = Phase::Failed;
        state.last_error = Some(failure.message);
        drop(state);
        if stop.wait(pause) {
            break;
        }
        if !failure.gone {
            wait = (wait * 2).min(RETRY_DELAYS.1);
        }
    }
}
