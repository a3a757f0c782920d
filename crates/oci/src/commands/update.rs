use std::io::Read;

use bulkhead_types::oci::{BlockIo, Cpu, Memory, Pids, Resources};

use super::state::alive;
use crate::arguments::{Command, Global};
use crate::directory::Directory;
use crate::error::{Error, Result};

pub fn run(global: &Global, command: &Command) -> Result<u8> {
    let directory = Directory::open(&global.root, command.id()?)?;
    directory.lock()?;
    let (record, status) = directory.look()?;
    let record = record.filter(|_| alive(status)).ok_or(Error::NotRunning)?;
    let resources = match command.value("resources") {
        Some(file) => read(file)?,
        None => from_options(command)?,
    };
    // What belongs together is translated together: a limit of swap needs that of memory.
    let mut config = directory.config()?;
    let linux = config.linux.get_or_insert_default();
    let known = linux.resources.get_or_insert_default();
    let resources = complete(resources, known);
    record.cgroup.update(&record.id, &resources)?;
    remember(known, &resources);
    directory.write_config(
        &serde_json::to_vec(&config).map_err(|error| Error::Config(error.to_string()))?,
    )?;
    Ok(0)
}

/// Fills in from what is in force the values that others are translated with.
fn complete(mut new: Resources, known: &Resources) -> Resources {
    if let (Some(memory), Some(old)) = (&mut new.memory, known.memory) {
        memory.limit = memory.limit.or(old.limit.filter(|_| memory.swap.is_some()));
        memory.swap = memory.swap.or(old.swap.filter(|_| memory.limit.is_some()));
    }
    if let (Some(cpu), Some(old)) = (&mut new.cpu, &known.cpu) {
        cpu.quota = cpu.quota.or(old.quota.filter(|_| cpu.period.is_some()));
        cpu.period = cpu.period.or(old.period.filter(|_| cpu.quota.is_some()));
    }
    new
}

/// Keeps what was set for the next update.
fn remember(known: &mut Resources, new: &Resources) {
    if let Some(memory) = new.memory {
        let old = known.memory.get_or_insert_default();
        old.limit = memory.limit.or(old.limit);
        old.swap = memory.swap.or(old.swap);
        old.reservation = memory.reservation.or(old.reservation);
    }
    if let Some(cpu) = &new.cpu {
        let old = known.cpu.get_or_insert_default();
        old.quota = cpu.quota.or(old.quota);
        old.period = cpu.period.or(old.period);
        old.shares = cpu.shares.or(old.shares);
    }
}

fn read(file: &str) -> Result<Resources> {
    let mut text = Vec::new();
    let what = || format!("read the resources from {file}");
    match file {
        "-" => std::io::stdin().read_to_end(&mut text).map(drop).map_err(Error::system(what()))?,
        file => text = std::fs::read(file).map_err(Error::system(what()))?,
    }
    serde_json::from_slice(&text).map_err(|error| Error::Config(format!("{file}: {error}")))
}

fn from_options(command: &Command) -> Result<Resources> {
    let bytes = |name: &str| -> Result<Option<i64>> {
        command
            .value(name)
            .filter(|value| !value.is_empty())
            .map(|value| size(name, value))
            .transpose()
    };
    let memory = Memory {
        limit: bytes("memory")?,
        reservation: bytes("memory-reservation")?,
        swap: bytes("memory-swap")?,
        kernel: bytes("kernel-memory")?,
        kernel_tcp: bytes("kernel-memory-tcp")?,
        ..Memory::default()
    };
    let cpu = Cpu {
        shares: command.number("cpu-share")?.or(command.number("cpu-shares")?),
        quota: command.number("cpu-quota")?,
        period: command.number("cpu-period")?,
        burst: command.number("cpu-burst")?,
        realtime_runtime: command.number("cpu-rt-runtime")?,
        realtime_period: command.number("cpu-rt-period")?,
        idle: command.number("cpu-idle")?,
        cpus: command.value("cpuset-cpus").unwrap_or_default().to_owned(),
        mems: command.value("cpuset-mems").unwrap_or_default().to_owned(),
    };
    let weight: Option<u16> = command.number("blkio-weight")?;
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: command.number("pids-limit")?.map(|limit| Pids { limit: Some(limit) }),
        block_io: weight.map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Resources::default()
    })
}

/// Bytes, with the suffixes that runc knows (`k`, `m`, `g`, `t`, powers of 1024); -1 is unlimited.
fn size(name: &str, text: &str) -> Result<i64> {
    let wrong = || {
        Error::Usage(format!("invalid value {text:?} of --{name}: write bytes, or 512k, 64m, 2g"))
    };
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let (number, shift) = match bare.char_indices().last() {
        Some((at, 'k')) => (&bare[..at], 10),
        Some((at, 'm')) => (&bare[..at], 20),
        Some((at, 'g')) => (&bare[..at], 30),
        Some((at, 't')) => (&bare[..at], 40),
        _ => (bare, 0),
    };
    let number: i64 = number.parse().map_err(|_| wrong())?;
    if number < 0 { Ok(-1) } else { number.checked_mul(1 << shift).ok_or_else(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        for (text, want) in [("1", 1), ("2k", 2048), ("3M", 3 << 20), ("1gb", 1 << 30), ("-1", -1)]
        {
            assert_eq!(size("memory", text).unwrap(), want, "{text}");
        }
        for text in ["", "k", "1x", "1kk", "9999999999t"] {
            assert!(size("memory", text).is_err(), "{text}");
        }
    }
}
