//! A program that measures a TCP connection: one side serves, the other one calls and says what it saw.
//! Static, as all of xtask: it runs in a container of an empty image.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const PING: u8 = b'p';
const STREAM: u8 = b's';
const BLOCK: usize = 128 << 10;

/// `bench probe serve ADDRESS:PORT`, or `bench probe call ADDRESS:PORT SECONDS`, which prints bytes a
/// second and the middle of the times of there and back, in nanoseconds.
pub fn run(arguments: &[&str]) -> Result<()> {
    match arguments {
        ["serve", address] => serve(address),
        ["call", address, seconds] => {
            let time = Duration::from_secs_f64(seconds.parse().context("seconds")?);
            let figures = Figures::measure(address, time)?;
            println!("{} {}", figures.bytes_a_second, figures.there_and_back.as_nanos());
            Ok(())
        }
        _ => bail!("serve ADDRESS:PORT, or call ADDRESS:PORT SECONDS"),
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Figures {
    pub bytes_a_second: u64,
    pub there_and_back: Duration,
}

impl Figures {
    /// Half of `time` for each of the two.
    pub fn measure(address: &str, time: Duration) -> Result<Self> {
        let there_and_back = ping(address, time / 2)?;
        Ok(Self { bytes_a_second: stream(address, time / 2)?, there_and_back })
    }

    /// What [`run`] has printed.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_ascii_whitespace().map(str::parse::<u64>);
        let mut word = || words.next().with_context(|| format!("two figures, not {text:?}"));
        Ok(Self { bytes_a_second: word()??, there_and_back: Duration::from_nanos(word()??) })
    }
}

fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    for client in listener.incoming() {
        let client = client?;
        // a caller that has gone ends its own thread
        std::thread::spawn(move || answer(client));
    }
    Ok(())
}

fn answer(mut client: TcpStream) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut wish = [0];
    client.read_exact(&mut wish)?;
    match wish[0] {
        PING => {
            let mut byte = [0];
            while client.read(&mut byte)? > 0 {
                client.write_all(&byte)?;
            }
        }
        _ => {
            let mut block = vec![0; BLOCK];
            let mut all = 0_u64;
            loop {
                let count = client.read(&mut block)?;
                if count == 0 {
                    break;
                }
                all += count as u64;
            }
            client.write_all(&all.to_be_bytes())?;
        }
    }
    Ok(())
}

fn connect(address: &str, wish: u8) -> Result<TcpStream> {
    let mut server =
        TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    server.set_nodelay(true)?;
    server.write_all(&[wish])?;
    Ok(server)
}

fn ping(address: &str, time: Duration) -> Result<Duration> {
    let mut server = connect(address, PING)?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let before = Instant::now();
        server.write_all(b"x")?;
        server.read_exact(&mut [0])?;
        times.push(before.elapsed());
    }
    Ok(super::median(&mut times))
}

fn stream(address: &str, time: Duration) -> Result<u64> {
    let mut server = connect(address, STREAM)?;
    let block = vec![0; BLOCK];
    let begin = Instant::now();
    while begin.elapsed() < time {
        server.write_all(&block)?;
    }
    server.shutdown(std::net::Shutdown::Write)?;
    // what has arrived, not what was sent
    let mut all = [0; 8];
    server.read_exact(&mut all)?;
    Ok((u64::from_be_bytes(all) as f64 / begin.elapsed().as_secs_f64()) as u64)
}
