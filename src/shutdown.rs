//! One signal that ends every task.

use tokio::sync::watch;

/// Tells everything that runs to end.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// And what sets it, with `true`.
    pub fn new() -> (watch::Sender<bool>, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (sender, Shutdown(receiver))
    }

    /// Waits until it is set. Cancel safe.
    pub async fn wait(&mut self) {
        // An error means that nobody is left who could set it: that is an end, too.
        let _ = self.0.wait_for(|set| *set).await;
    }
}
