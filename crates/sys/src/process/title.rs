//! The command line of this process that others see in `/proc/PID/cmdline`.
//!
//! It lies in the process's own memory, where execve(2) has put it, and the kernel reads it from
//! there whenever somebody asks (proc_pid_cmdline(5)); the environment comes right behind.

use std::sync::OnceLock;

/// Where the kernel looks: addresses of this process, and of whoever has a copy of its memory.
#[derive(Debug, Clone, Copy)]
struct Area {
    arguments: usize,
    arguments_end: usize,
    end: usize,
}

static AREA: OnceLock<Area> = OnceLock::new();

/// Looks up where the command line lies, for this process and those that it will fork; without it
/// [`set_title`] does nothing.
///
/// `stat` is the text of `/proc/self/stat`: fields 48 to 51 are the places of arguments and
/// environment (proc_pid_stat(5)).
pub fn remember_title_area(stat: &str) {
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut numbers = fields.split_ascii_whitespace().skip(48 - 3).map(|field| field.parse().ok());
    let mut next = || numbers.next().flatten().filter(|place: &usize| *place != 0);
    let (Some(arguments), Some(arguments_end), Some(environment), Some(end)) =
        (next(), next(), next(), next())
    else {
        return;
    };
    if arguments < arguments_end && arguments_end <= environment && environment <= end {
        let _ = AREA.set(Area { arguments, arguments_end, end });
    }
}

/// Shows `words` as this process's command line. One that is too long is cut.
///
/// The environment that this process was started with is gone afterwards, and so are its arguments:
/// for a forked child that never asks for them again.
pub fn set_title(words: &[&[u8]]) {
    let Some(area) = AREA.get() else { return };
    let (room, room_of_all) = (area.arguments_end - area.arguments, area.end - area.arguments);
    let length: usize = words.iter().map(|word| word.len() + 1).sum();
    // Where the last byte of the arguments is not zero, the kernel takes them for one text that may
    // go on through the environment (linux: fs/proc/base.c, `get_mm_cmdline`).
    let (separator, most) = if length <= room { (0, room) } else { (b' ', room_of_all - 1) };
    let joined = words.iter().flat_map(|word| word.iter().copied().chain([separator]));
    let bytes = joined.take(most).chain(std::iter::repeat(0));
    for (place, byte) in (area.arguments..area.end).zip(bytes) {
        // SAFETY: the kernel has mapped these addresses for the strings of execve(2), writable and as
        // long as the process lives, and `AREA` holds its own word for where they begin and end. No
        // reference to them exists: this child reads neither its arguments nor its environment.
        unsafe { std::ptr::with_exposed_provenance_mut::<u8>(place).write_volatile(byte) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    #[test]
    fn the_kernel_shows_what_was_set() {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        super::remember_title_area(&stat);
        let shown = |words: &'static [&'static [u8]]| {
            let (mut read, write) = std::io::pipe().unwrap();
            let pid = crate::process::fork(|| {
                super::set_title(words);
                let mut line = [0; 4096];
                let line = std::fs::File::open("/proc/self/cmdline")
                    .and_then(|mut file| file.read(&mut line))
                    .map_or(&[][..], |length| &line[..length]);
                rustix::io::write(&write, line).map_or(1, |_| 0)
            });
            drop(write);
            let mut line = Vec::new();
            read.read_to_end(&mut line).unwrap();
            let pid = rustix::process::Pid::from_raw(pid.unwrap() as i32).unwrap();
            rustix::process::waitid(
                rustix::process::WaitId::Pid(pid),
                rustix::process::WaitIdOptions::EXITED,
            )
            .unwrap();
            String::from_utf8(line).unwrap()
        };
        assert_eq!(shown(&[b"/i", b"--", b"sh"]).trim_end_matches('\0'), "/i\0--\0sh");
        const LONG: &[u8] = &[b'x'; 600];
        let long = shown(&[b"/i", b"--", LONG]);
        assert!(long.starts_with("/i -- xxx") || long.starts_with("/i\0--\0xxx"), "{long:?}");
        assert!(!long.contains("PATH="), "{long:?}");
    }
}
