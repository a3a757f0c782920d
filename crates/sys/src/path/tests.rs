use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::RenameFlags;

use std::os::fd::AsFd;

use super::*;

struct Tree {
    top: tempfile::TempDir,
    root: OwnedFd,
}

/// `top/secret` lies outside, `top/root` is the root.
fn tree() -> Tree {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("secret"), "outside").unwrap();
    let root = top.path().join("root");
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(root.join("secret"), "inside").unwrap();
    fs::write(root.join("dir/file"), "file").unwrap();
    symlink(top.path().join("secret"), root.join("absolute")).unwrap();
    symlink("../../secret", root.join("dir/relative")).unwrap();
    symlink("/", root.join("dir/slash")).unwrap();
    symlink("/run/made", root.join("dangling")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    let root = open_host(&root, OFlags::PATH | OFlags::DIRECTORY).unwrap();
    Tree { top, root }
}

fn text(file: OwnedFd) -> String {
    io::read_to_string(fs::File::from(file)).unwrap()
}

fn read(root: &OwnedFd, path: &str) -> Result<String, Errno> {
    open(root.as_fd(), Path::new(path), OFlags::RDONLY, Mode::empty())
        .map(text)
        .map_err(|error| Errno::from_io_error(&error).unwrap())
}

#[test]
fn no_path_leads_out() {
    let tree = tree();
    for (path, want) in [
        ("secret", Ok("inside")),
        ("/secret", Ok("inside")),
        ("../secret", Ok("inside")),
        ("../../../../../../secret", Ok("inside")),
        ("dir/../../secret", Ok("inside")),
        ("dir/relative", Ok("inside")),
        ("dir/slash/secret", Ok("inside")),
        ("dir/slash/../../secret", Ok("inside")),
        ("dir/sub/../file", Ok("file")),
        ("absolute", Err(Errno::NOENT)),
        ("loop", Err(Errno::LOOP)),
        ("magic/etc/passwd", Err(Errno::NOENT)),
        ("secret/x", Err(Errno::NOTDIR)),
        ("", Err(Errno::NOENT)),
    ] {
        assert_eq!(read(&tree.root, path).as_deref(), want.as_ref().copied(), "{path:?}");
    }
}

#[test]
fn magic_links_are_refused() {
    let proc = open_host(Path::new("/proc"), OFlags::PATH).unwrap();
    assert_eq!(read(&proc, "self/exe"), Err(Errno::LOOP));
    assert_eq!(read(&proc, "self/root/etc/passwd"), Err(Errno::LOOP));
    let error = open_host(Path::new("/proc/self/root/etc"), OFlags::PATH).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::LOOP));
    assert!(open_host(Path::new("etc"), OFlags::PATH).is_err());
}

#[test]
fn descriptors_close_on_exec_and_new_files_have_their_mode() {
    let tree = tree();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let file =
        open(tree.root.as_fd(), Path::new("dir/new"), flags, Mode::from_raw_mode(0o600)).unwrap();
    assert_eq!(rustix::io::fcntl_getfd(&file), Ok(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_mode & 0o7777, 0o600);
    assert!(open(tree.root.as_fd(), Path::new("dir/new"), flags, Mode::RUSR).is_err());
}

#[test]
fn directories_are_made_inside_only() {
    let tree = tree();
    let top = tree.top.path();
    for (path, made) in [
        ("a/b/c", "root/a/b/c"),
        ("/x//y/", "root/x/y"),
        ("../../up", "root/up"),
        ("dir/slash/via", "root/via"),
        ("dangling/deep", "root/run/made/deep"),
        ("new/../beside", "root/beside"),
        (".", "root"),
        ("/", "root"),
    ] {
        let made_now =
            create_dir_all(tree.root.as_fd(), Path::new(path), Mode::from_raw_mode(0o755));
        let stat = rustix::fs::fstat(made_now.unwrap()).unwrap();
        let want = rustix::fs::stat(top.join(made)).unwrap();
        assert_eq!(stat.st_ino, want.st_ino, "{path:?}");
    }
    for path in ["secret/x", "loop/x", ""] {
        let made = create_dir_all(tree.root.as_fd(), Path::new(path), Mode::RWXU);
        assert!(made.is_err(), "{path:?}");
    }
    assert_eq!(fs::read_dir(top).unwrap().count(), 2, "nothing was made outside");
}

#[test]
fn the_parent_of_a_path() {
    let tree = tree();
    for (path, name) in [("dir/file", "file"), ("file", "file"), ("/dir/sub///", "sub")] {
        let (_, last) = open_parent(tree.root.as_fd(), Path::new(path), false).unwrap();
        assert_eq!(last, name, "{path:?}");
    }
    for path in ["", "/", ".", "..", "dir/..", "dir/.", "dir/../", "missing/file"] {
        assert!(open_parent(tree.root.as_fd(), Path::new(path), false).is_err(), "{path:?}");
    }
    let (parent, name) = open_parent(tree.root.as_fd(), Path::new("m/n/file"), true).unwrap();
    rustix::fs::mkdirat(parent, name, Mode::RWXU).unwrap();
    assert!(tree.top.path().join("root/m/n/file").is_dir());
}

#[test]
fn a_tree_is_removed_without_following_links() {
    let tree = tree();
    let top = open_host(tree.top.path(), OFlags::RDONLY).unwrap();
    symlink("../../secret", tree.top.path().join("root/dir/sub/out")).unwrap();
    symlink("../..", tree.top.path().join("root/dir/sub/up")).unwrap();
    remove_tree(top.as_fd(), OsStr::new("root")).unwrap();
    assert!(!tree.top.path().join("root").exists());
    assert_eq!(fs::read_to_string(tree.top.path().join("secret")).unwrap(), "outside");
    remove_tree(top.as_fd(), OsStr::new("root")).unwrap();
    symlink("secret", tree.top.path().join("link")).unwrap();
    remove_tree(top.as_fd(), OsStr::new("link")).unwrap();
    assert_eq!(fs::read_dir(tree.top.path()).unwrap().count(), 1);
    for name in ["", ".", "..", "a/b"] {
        assert!(remove_tree(top.as_fd(), OsStr::new(name)).is_err(), "{name:?}");
    }
}

#[test]
fn a_tree_deeper_than_open_files_is_removed() {
    let tree = tree();
    let mut at = open_host(&tree.top.path().join("root"), OFlags::PATH).unwrap();
    for _ in 0..3000 {
        for name in ["deep", "other"] {
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        open(at.as_fd(), Path::new("deep/file"), flags, Mode::RUSR).unwrap();
        at = open(at.as_fd(), Path::new("deep"), OFlags::PATH, Mode::empty()).unwrap();
    }
    let top = open_host(tree.top.path(), OFlags::RDONLY).unwrap();
    remove_tree(top.as_fd(), OsStr::new("root")).unwrap();
    assert!(!tree.top.path().join("root").exists());
}

#[test]
fn a_racing_rename_never_leads_out() {
    // `swap` is now a directory with a `secret`, now a link to the outside.
    let tree = tree();
    let top = tree.top.path();
    fs::create_dir(top.join("root/swap")).unwrap();
    fs::write(top.join("root/swap/secret"), "inside").unwrap();
    symlink("../..", top.join("root/link")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let root = open_host(&top.join("root"), OFlags::PATH).unwrap();
            while !done.load(Ordering::Relaxed) {
                let exchange = RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(&root, "swap", &root, "link", exchange).unwrap();
            }
        });
        for round in 0..1_500 {
            for path in ["swap/secret", "dir/../swap/../secret"] {
                match read(&tree.root, path) {
                    Ok(text) => assert_eq!(text, "inside", "{path}"),
                    Err(error) => {
                        assert!([Errno::AGAIN, Errno::NOENT].contains(&error), "{path}: {error}")
                    }
                }
            }
            if round % 50 == 0 {
                let made = format!("swap/made-{round}/x");
                let _ = create_dir_all(tree.root.as_fd(), Path::new(&made), Mode::RWXU);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    let outside: Vec<_> = fs::read_dir(top).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(outside.len(), 2, "{outside:?}");
}

#[test]
fn a_file_is_made_where_a_link_to_nowhere_points_inside() {
    let outside = tempfile::tempdir().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    symlink(outside.path().join("x"), path.join("out")).unwrap();
    symlink("../../a/b", path.join("up")).unwrap();
    symlink("loop", path.join("loop")).unwrap();
    let root = fs::File::open(path).unwrap();
    let make =
        |name: &str| open_or_create_file(root.as_fd(), Path::new(name), Mode::from_raw_mode(0o644));
    make("/out").unwrap();
    make("up").unwrap();
    make("up").unwrap();
    assert!(path.join("a/b").is_file());
    let inside = path.join(outside.path().strip_prefix("/").unwrap()).join("x");
    assert!(inside.is_file(), "{}", inside.display());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(make("loop").unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
}

#[test]
fn a_walk_shows_everything_in_order_and_follows_no_link() {
    let tree = tree();
    let mut walk = Walk::new(tree.root.as_fd()).unwrap();
    let mut seen = Vec::new();
    while let Some(visit) = walk.visit().unwrap() {
        seen.push(match visit {
            Visit::Enter(visited) => {
                if visited.name() == "sub" {
                    walk.skip();
                }
                format!("> {}", visited.path.display())
            }
            Visit::File(visited) => visited.path.display().to_string(),
            Visit::Leave => "<".to_owned(),
        });
    }
    let want = [
        "absolute",
        "dangling",
        "> dir",
        "dir/file",
        "dir/relative",
        "dir/slash",
        "> dir/sub",
        "<",
        "loop",
        "magic",
        "secret",
    ];
    assert_eq!(seen, want);
}

#[test]
fn a_walk_is_deeper_than_the_stack_and_survives_what_goes() {
    let top = tempfile::tempdir().unwrap();
    let mut at = open_host(top.path(), OFlags::PATH | OFlags::DIRECTORY).unwrap();
    for _ in 0..500 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        rustix::fs::mkdirat(&at, "gone", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", OFlags::PATH, Mode::empty()).unwrap();
    }
    let root = open_host(top.path(), OFlags::PATH | OFlags::DIRECTORY).unwrap();
    let count = std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(160 << 10);
        let walking = || {
            let mut walk = Walk::new(root.as_fd()).unwrap();
            let mut count = 0;
            while let Some(visit) = walk.visit().unwrap() {
                if let Visit::Enter(visited) = visit {
                    let holder = visited.path.parent().unwrap().join("gone");
                    let _ = fs::remove_dir(top.path().join(holder));
                    count += 1;
                }
            }
            count
        };
        small.spawn_scoped(scope, walking).unwrap().join().unwrap()
    });
    assert_eq!(count, 500);
}
