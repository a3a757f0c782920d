//! Terminals, attached clients, logs.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::fixture::*;

crate::cases::cases![
    a_client_that_does_not_read_is_dropped,
    a_terminal,
    attached_clients_get_frames,
    standard_input_reaches_the_process,
    much_output_is_complete,
];

fn a_terminal() {
    let ship = Ship::launch();
    let script = "tty; stty size; test -c /dev/console && echo console; read line; stty size; echo got $line >&2";
    let mut wish = ship.wish(&["sh", "-c", script]);
    wish.spec.process.terminal = true;
    wish.spec.process.terminal_size = (24, 80);
    wish.stdin_open = true;
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    let want = "/dev/pts/0\r\n24 80\r\nconsole\r\n";
    let mut bytes = vec![0; want.len()];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(String::from_utf8(bytes).unwrap(), want);
    ship.client.resize(id, 50, 132).unwrap();
    socket.write_all(b"typed\n").unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    assert_eq!(text, "typed\r\n50 132\r\ngot typed\r\n");
    assert_eq!(ship.exit(id).code, 0);
    assert!(ship.log(id).ends_with("got typed\r\n"));
}

fn attached_clients_get_frames() {
    let ship = Ship::launch();
    let (wish, socket) = ship.wish(&["sh", "-c", "echo out; echo err >&2"]).attach();
    let (wish, other) = wish.attach();
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    for socket in [socket, other] {
        let mut frames = frames(socket);
        frames.sort();
        assert_eq!(frames, [(1, "out\n".into()), (2, "err\n".into())]);
    }
    assert_eq!(ship.exit(id).code, 0);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ship.client.attach(id, theirs.into(), false, true, true).unwrap();
    assert_eq!(frames(ours), [], "nothing comes after the end");
}

fn standard_input_reaches_the_process() {
    let ship = Ship::launch();
    let mut wish = ship.wish(&["wc", "-c"]);
    (wish.stdin_open, wish.stdin_once) = (true, true);
    let (id, (wish, mut socket)) = (wish.id, wish.attach());
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    // more than the pipe, the socket and the warden hold together
    let megabytes = vec![b'x'; 3 << 20];
    socket.write_all(&megabytes).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(frames(socket), [(1, format!("{}\n", megabytes.len()))]);
    assert_eq!(ship.exit(id).code, 0);
    let closed = ship.wish(&["cat"]);
    assert_eq!(ship.run(closed), (0, String::new()), "without -i it is /dev/null");
}

fn much_output_is_complete() {
    let ship = Ship::launch();
    let (code, text) =
        ship.sh("dd if=/dev/zero bs=1024 count=2000 2>/dev/null | busybox tr '\\0' x; echo end");
    assert_eq!((code, text.len()), (0, 2000 * 1024 + 4));
    let mut wish = ship.wish(&[
        "sh",
        "-c",
        "dd if=/dev/zero bs=1024 count=500 2>/dev/null | busybox tr '\\0' x; echo end",
    ]);
    wish.spec.process.terminal = true;
    let (code, text) = ship.run(wish);
    assert_eq!((code, text.len()), (0, 500 * 1024 + 5), "through a terminal");
}

fn a_client_that_does_not_read_is_dropped() {
    let ship = Ship::launch();
    let script = "dd if=/dev/zero bs=1024 count=12000 2>/dev/null | busybox tr '\\0' x; echo end";
    let (wish, mut socket) = ship.wish(&["sh", "-c", script]).attach();
    let id = wish.id;
    ship.create(wish).unwrap();
    ship.client.start(id).unwrap();
    assert_eq!(ship.exit(id).code, 0, "the container did not wait for the client");
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() < 12_000 * 1024, "{}", bytes.len());
    let directory = ship.directory.path().join("logs");
    let logged: u64 =
        fs::read_dir(directory).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
    assert!(logged > 12_000 * 1024, "the log has everything: {logged}");
}
