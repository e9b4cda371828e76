//! A door in front of a Kafka broker through which answers get lost, come late, or nothing passes at all.
//!
//! It passes whole frames of the protocol. Where a broker says its own address, the address of the door is put, so that
//! clients stay behind it; both have one length, and nothing else is changed.
//!
//! A lost answer is one to a request that the broker has carried out: the connection is reset in its place, and the client
//! does not know what became of the request.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, watch},
    task::JoinHandle,
};

/// What happens to answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Of the answers to requests that write, each so many-th is lost.
    LosesAnswers {
        one_in: u64,
    },
    /// Each so many-th answer resets its connection, whatever it is.
    Resets {
        one_in: u64,
    },
    /// Each answer waits.
    Slow(Duration),
    /// Nothing passes in either direction, as if the broker were frozen.
    Stalled,
}

/// A door in front of one broker; closed when dropped.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    lost: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

/// Requests by their number in the protocol: produce, and the commit of offsets.
const WRITES: [u16; 2] = [0, 8];

/// No frame of a test is larger.
const MOST_BYTES: u32 = 64 << 20;

impl Proxy {
    /// Opens a door in front of `broker`, an address with a number such as `127.0.0.1:9092`.
    ///
    /// # Errors
    /// An address that is none, or no free port.
    pub async fn open(broker: &str) -> std::io::Result<Self> {
        let broker: SocketAddr =
            broker.parse().map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind((broker.ip(), 0)).await?;
        let address = listener.local_addr()?;
        let (weather, _) = watch::channel(Weather::Fair);
        let lost = Arc::new(AtomicU64::new(0));
        let way =
            Way { broker, door: address, weather: weather.clone(), lost: Arc::clone(&lost), answers: Arc::default() };
        let accepting = tokio::spawn(accept(listener, way));
        Ok(Self { address, weather, lost, accepting })
    }

    /// Where clients find the broker.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Answers that were lost so far, with those of reset connections.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What every connection needs.
#[derive(Clone)]
struct Way {
    broker: SocketAddr,
    door: SocketAddr,
    weather: watch::Sender<Weather>,
    lost: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
}

/// Which request an answer is to: its kind by its correlation id.
type Asked = Arc<Mutex<HashMap<u32, u16>>>;

async fn accept(listener: TcpListener, way: Way) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let way = way.clone();
        // A connection that fails is one that ends: its client opens another.
        connections.spawn(async move { drop(way.connect(client).await) });
        while connections.try_join_next().is_some() {}
    }
}

impl Way {
    async fn connect(self, client: TcpStream) -> std::io::Result<()> {
        let broker = TcpStream::connect(self.broker).await?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
        let asked = Asked::default();
        // Either end closes both.
        tokio::select! {
            ended = self.requests(from_client, to_broker, &asked) => ended,
            ended = self.answers(from_broker, to_client, &asked) => ended,
        }
    }

    async fn requests(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked) -> std::io::Result<()> {
        loop {
            let frame = read_frame(&mut from).await?;
            if let Some((kind, id)) = kind_and_id(&frame) {
                asked.lock().await.insert(id, kind);
            }
            self.wait_out_a_stall().await;
            to.write_all(&frame).await?;
        }
    }

    async fn answers(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked) -> std::io::Result<()> {
        loop {
            let mut frame = read_frame(&mut from).await?;
            let kind = match frame.get(4..8).and_then(|id| id.try_into().ok()) {
                Some(id) => asked.lock().await.remove(&u32::from_be_bytes(id)),
                None => None,
            };
            self.wait_out_a_stall().await;
            if self.is_lost(kind) {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            let weather = *self.weather.borrow();
            if let Weather::Slow(time) = weather {
                tokio::time::sleep(time).await;
            }
            self.put_door(&mut frame);
            to.write_all(&frame).await?;
        }
    }

    fn is_lost(&self, kind: Option<u16>) -> bool {
        let is_each = |one_in: u64| self.answers.fetch_add(1, Ordering::Relaxed) % one_in.max(1) == one_in.max(1) - 1;
        match *self.weather.borrow() {
            Weather::LosesAnswers { one_in } => kind.is_some_and(|kind| WRITES.contains(&kind)) && is_each(one_in),
            Weather::Resets { one_in } => is_each(one_in),
            Weather::Fair | Weather::Slow(_) | Weather::Stalled => false,
        }
    }

    async fn wait_out_a_stall(&self) {
        // Nobody sets the weather any more when the door is gone.
        drop(self.weather.subscribe().wait_for(|weather| *weather != Weather::Stalled).await);
    }

    /// Puts the door's port where the broker's address is.
    fn put_door(&self, frame: &mut [u8]) {
        let (host, port) = (self.broker.ip().to_string(), u32::from(self.broker.port()).to_be_bytes());
        let said: Vec<u8> = host.bytes().chain(port).collect();
        let mut at = 0;
        while let Some(found) = frame.get(at..).and_then(|rest| rest.windows(said.len()).position(|part| part == said))
        {
            let begin = at + found + host.len();
            at = begin + port.len();
            if let Some(place) = frame.get_mut(begin..at) {
                place.copy_from_slice(&u32::from(self.door.port()).to_be_bytes());
            }
        }
    }
}

/// One frame, with its length in front.
async fn read_frame(from: &mut OwnedReadHalf) -> std::io::Result<Vec<u8>> {
    let length = from.read_u32().await?;
    if length > MOST_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "a frame that is no frame"));
    }
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + length as usize, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}

/// Kind and correlation id of a request.
fn kind_and_id(frame: &[u8]) -> Option<(u16, u32)> {
    let kind = u16::from_be_bytes(frame.get(4..6)?.try_into().ok()?);
    let id = u32::from_be_bytes(frame.get(8..12)?.try_into().ok()?);
    Some((kind, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that answers each request with its correlation id and its own address.
    async fn broker() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    loop {
                        let mut request = [0; 12];
                        stream.read_exact(&mut request).await?;
                        let mut answer = request[8..12].to_vec();
                        answer.extend(b"127.0.0.1");
                        answer.extend(u32::from(address.port()).to_be_bytes());
                        stream.write_u32(answer.len() as u32).await?;
                        stream.write_all(&answer).await?;
                    }
                    #[allow(unreachable_code)]
                    Ok::<_, std::io::Error>(())
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream, kind: u16, id: u32) -> std::io::Result<Vec<u8>> {
        let mut request = 8_u32.to_be_bytes().to_vec();
        request.extend(kind.to_be_bytes());
        request.extend([0, 0]);
        request.extend(id.to_be_bytes());
        stream.write_all(&request).await?;
        let length = stream.read_u32().await?;
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn answers_name_the_door_and_get_lost_when_they_should() {
        let proxy = Proxy::open(&broker().await.to_string()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let mut expected = 7_u32.to_be_bytes().to_vec();
        expected.extend(b"127.0.0.1");
        expected.extend(u32::from(proxy.address.port()).to_be_bytes());
        assert_eq!(ask(&mut client, 3, 7).await.unwrap(), expected);
        proxy.set(Weather::LosesAnswers { one_in: 1 });
        // Answers that say nothing of a write come.
        assert_eq!(ask(&mut client, 3, 7).await.unwrap(), expected);
        assert!(ask(&mut client, 0, 8).await.is_err());
        assert_eq!(proxy.lost(), 1);
    }

    #[tokio::test]
    async fn a_stall_ends() {
        let proxy = Proxy::open(&broker().await.to_string()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Weather::Stalled);
        let answer = tokio::spawn(async move { ask(&mut client, 3, 7).await });
        tokio::task::yield_now().await;
        assert!(!answer.is_finished());
        proxy.set(Weather::Fair);
        assert!(answer.await.unwrap().is_ok());
    }
}
