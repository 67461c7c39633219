//! A shutdown signal shared by all tasks.

use tokio::sync::watch;

/// A receiver of the shutdown signal.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Returns a sender and a receiver. Sending `true` gives the signal.
    pub fn new() -> (watch::Sender<bool>, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (sender, Shutdown(receiver))
    }

    /// Waits for the signal. This method is cancel safe.
    pub async fn wait(&mut self) {
        // An error means that the sender was dropped. That counts as the signal.
        let _ = self.0.wait_for(|set| *set).await;
    }
}
