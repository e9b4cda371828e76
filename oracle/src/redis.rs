//! A Redis server of a test's own, which it may kill and start again. It keeps nothing on disk: what it held dies with it.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Enough on a busy machine; a start takes some hundredths of a second.
const DEADLINE: Duration = Duration::from_secs(180);

const BETWEEN: Duration = Duration::from_millis(20);

/// The server; killed when dropped.
pub struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    /// Starts one on a free port of this machine and waits until it answers; none where `redis-server` is not installed.
    ///
    /// # Errors
    /// It does not start, or answers nothing within three minutes.
    pub async fn start() -> io::Result<Option<Self>> {
        let start = Instant::now();
        loop {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
            match Self::launch(port).await {
                // Somebody else took the port meanwhile.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < DEADLINE => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                started => return started.map(Some),
            }
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it as a crash does: nothing of it runs any more when this returns.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Starts it again after [`Redis::kill`], empty and at the same address.
    ///
    /// # Errors
    /// As [`Redis::start`].
    pub async fn start_again(&mut self) -> io::Result<()> {
        *self = Self::launch(self.port).await?;
        Ok(())
    }

    async fn launch(port: u16) -> io::Result<Self> {
        let text = port.to_string();
        let words = ["--port", &text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let mut command = Command::new("redis-server");
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self { child: command.spawn()?, port };
        let start = Instant::now();
        while !server.answers().await {
            if let Some(status) = server.child.try_wait()? {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("redis-server ended with {status}")));
            }
            if start.elapsed() > DEADLINE {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "redis-server does not answer"));
            }
            tokio::time::sleep(BETWEEN).await;
        }
        Ok(server)
    }

    async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).await?;
            io::Result::Ok(answer == *b"+PONG")
        };
        ask.await.unwrap_or(false)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
