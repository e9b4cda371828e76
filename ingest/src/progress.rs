//! How far published events have come: the door's view of the layers behind it (spec P4, P6).

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use tokio::time::{Instant, timeout_at};

use crate::{outcome::Positions, receipt::Receipt};

/// The longest that `?wait=` waits (decision 33).
pub const WAIT_AT_MOST: Duration = Duration::from_secs(30);

/// The layers in the order that an event passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// Durable in the event log.
    Logged,
    Bronze,
    Silver,
    Gold,
}

impl Layer {
    /// The name in queries and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logged => "logged",
            Self::Bronze => "bronze",
            Self::Silver => "silver",
            Self::Gold => "gold",
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Layer {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Logged, Self::Bronze, Self::Silver, Self::Gold]
            .into_iter()
            .find(|layer| layer.name() == name)
            .ok_or_else(|| format!("unknown layer `{name}`: expected `bronze`, `silver` or `gold`"))
    }
}

/// Knows how far each topic has come. The binary wires it to commit notices and epochs.
#[async_trait]
pub trait Progress: Send + Sync + 'static {
    /// Returns once `layer` has committed every record of `topic` below `positions` (next offsets by partition);
    /// quarantined counts as committed. Ready at the first poll when that is already so. May never return: the
    /// caller has the deadline. Dropping the future is fine.
    async fn reached(&self, layer: Layer, topic: &str, positions: &std::collections::BTreeMap<u32, i64>);

    /// How many events of a receipt's batch are in quarantine now; `None` when nobody can tell.
    async fn quarantined(&self, _receipt: &Receipt) -> Option<u64> {
        None
    }
}

/// Waits until `target` holds everything below `positions`, at most `patience`. Gives the layer reached; with no
/// patience, the layer that holds it now.
pub async fn wait_for(progress: &dyn Progress, target: Layer, positions: &Positions, patience: Duration) -> Layer {
    let deadline = Instant::now() + patience;
    let mut reached = Layer::Logged;
    for layer in [Layer::Bronze, Layer::Silver, Layer::Gold] {
        let all_topics = async {
            for (topic, next) in positions {
                progress.reached(layer, topic, next).await;
            }
        };
        if layer > target || timeout_at(deadline, all_topics).await.is_err() {
            break;
        }
        reached = layer;
    }
    reached
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Has come as far as this layer, for offsets below 10.
    struct Fixed(Layer);

    #[async_trait]
    impl Progress for Fixed {
        async fn reached(&self, layer: Layer, _: &str, positions: &BTreeMap<u32, i64>) {
            if layer > self.0 || positions.values().any(|next| *next > 10) {
                std::future::pending::<()>().await;
            }
        }
    }

    fn up_to(next: i64) -> Positions {
        BTreeMap::from([("karat.events".to_owned(), BTreeMap::from([(0, next)]))])
    }

    #[tokio::test]
    async fn without_patience_the_answer_is_the_layer_of_now() {
        let layer = wait_for(&Fixed(Layer::Silver), Layer::Gold, &up_to(10), Duration::ZERO).await;
        assert_eq!(layer, Layer::Silver);
        let layer = wait_for(&Fixed(Layer::Gold), Layer::Gold, &up_to(11), Duration::ZERO).await;
        assert_eq!(layer, Layer::Logged);
    }

    #[tokio::test]
    async fn waiting_ends_at_the_wanted_layer() {
        let layer = wait_for(&Fixed(Layer::Gold), Layer::Bronze, &up_to(1), Duration::from_secs(30)).await;
        assert_eq!(layer, Layer::Bronze);
    }
}
