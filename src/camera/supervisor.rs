//! Runs each camera in its own thread and reopens its source when it ends.

use crate::camera::Stop;
use crate::camera::error::SourceError;
use crate::camera::source::{Output, Source};
use crate::camera::status::Camera;
use crate::camera::{auto, command, rpicam, test_card, v4l2};
use crate::config;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Delay before a source is reopened for the first time. It doubles with each failure.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Maximum delay before a source is reopened.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

/// Interval at which an absent device is searched for.
const SEARCH_INTERVAL: Duration = Duration::from_millis(250);

/// Duration of a run after which the delay returns to its minimum, if the run delivered frames.
const STABLE_RUN: Duration = Duration::from_secs(10);

/// The sources of all cameras, in the order of the configuration.
fn sources(configs: &[config::Camera]) -> Vec<Box<dyn Source>> {
    let device = |config: &config::Camera| match &config.source {
        Some(config::Source::Device(path)) => Some(PathBuf::from(path)),
        _ => None,
    };
    let devices: Vec<PathBuf> = configs.iter().filter_map(device).collect();
    // Cameras without a number take the numbers that are left.
    let is_free = |number: &usize| {
        !configs.iter().any(|config| config.camera_number.is_some_and(|n| n as usize == *number))
    };
    let (mut rpicams, mut autos) = ((0..).filter(is_free), 0..configs.len());
    let next = |numbers: &mut std::ops::Range<usize>| numbers.next().unwrap_or_default();
    let source = |config: &config::Camera| -> Box<dyn Source> {
        match &config.source {
            None => Box::new(auto::Auto::new(config, next(&mut autos), devices.clone())),
            Some(config::Source::TestCard) => Box::new(test_card::TestCard),
            Some(config::Source::Command(command)) => {
                Box::new(command::Command::new(command.clone()))
            }
            Some(config::Source::Rpicam) => {
                let number = config.camera_number.map(|number| number as usize);
                let number = number.or_else(|| rpicams.next()).unwrap_or_default();
                Box::new(rpicam::Rpicam::new(config, number))
            }
            Some(config::Source::Device(path)) => Box::new(v4l2::device::Device::new(path, config)),
        }
    };
    configs.iter().map(source).collect()
}

/// Running cameras. They stop when this is dropped.
pub struct Cameras {
    /// The cameras, in the order of the configuration.
    pub all: Vec<Arc<Camera>>,
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

impl Cameras {
    /// Starts a thread for each camera.
    ///
    /// # Errors
    ///
    /// The system cannot create another file descriptor or thread. Cameras already started are
    /// stopped.
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

    /// Takes over from `earlier`, the cameras of the previous configuration, when they delivered
    /// frames.
    pub fn continue_from(&self, earlier: &[Arc<Camera>]) {
        for camera in &self.all {
            earlier.iter().for_each(|earlier| camera.continue_from(earlier));
        }
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

/// Runs the source, and reopens it whenever it ends, until `stop` is set.
fn keep_running(camera: &Arc<Camera>, mut source: Box<dyn Source>, stop: &Stop) {
    let mut retry_delay = MIN_RETRY_DELAY;
    while !stop.is_set() {
        let started = Instant::now();
        let frames = camera.frames();
        let error = match source.run(&mut Output::new(camera.clone()), stop) {
            Ok(()) if stop.is_set() => break,
            Ok(()) => SourceError::Ended,
            Err(error) => error,
        };
        camera.stream.interrupt();
        if started.elapsed() > STABLE_RUN && camera.frames() > frames {
            retry_delay = MIN_RETRY_DELAY;
        }
        let is_absent = error.is_absent();
        let pause = if is_absent { SEARCH_INTERVAL } else { retry_delay };
        let message = error.to_string();
        let is_repeated = camera.has_failed_with(&message);
        // A repeated error must not flood the log.
        let level = if is_repeated { log::Level::Debug } else { log::Level::Error };
        let name = &camera.config.name;
        if is_absent {
            log::log!(level, "camera \"{name}\": {message} (waiting for the device)");
        } else {
            let seconds = pause.as_secs();
            log::log!(level, "camera \"{name}\": {message} (retrying in {seconds} s)");
        }
        // Searching for an absent device does not count as a restart.
        camera.failed(message, !(is_absent && is_repeated));
        if stop.wait(pause) {
            break;
        }
        if !is_absent {
            retry_delay = (retry_delay * 2).min(MAX_RETRY_DELAY);
        }
    }
}
