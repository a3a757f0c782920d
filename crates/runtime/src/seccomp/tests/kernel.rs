use super::*;

/// On the real kernel, in a thread of its own: a filter stays with the thread that installs it.
#[test]
fn the_kernel_takes_the_default_filter_and_obeys() {
    use rustix::io::Errno;
    use rustix::thread::{UnshareFlags, set_no_new_privs};

    let filter = compile(&Seccomp::Default, Capabilities::DEFAULT).unwrap().unwrap();
    let confined = std::thread::spawn(move || {
        set_no_new_privs(true).unwrap();
        bulkhead_sys::seccomp::install(&filter.instructions, filter.flags).unwrap();
        let families = [2, 40, 1 << 32 | 40, 38];
        (
            families.map(|family| bulkhead_sys::testing::socket(family).map(drop)),
            // were it let through, it would change this thread alone
            bulkhead_sys::unshare(UnshareFlags::NEWUTS),
            // glibc asks for clone3 first, and takes clone when there is none
            std::thread::spawn(|| 7).join().unwrap(),
            #[cfg(target_arch = "x86_64")]
            [1, 40]
                .map(|family| bulkhead_sys::testing::socketcall32(family).map(|it| it.map(drop))),
        )
    });
    #[cfg(target_arch = "x86_64")]
    let (sockets, unshare, child, i386) = confined.join().unwrap();
    #[cfg(not(target_arch = "x86_64"))]
    let (sockets, unshare, child) = confined.join().unwrap();
    assert_eq!(sockets, [Ok(()), Err(Errno::PERM), Err(Errno::PERM), Err(Errno::PERM)]);
    let refused = unshare.unwrap_err().raw_os_error();
    assert_eq!((refused, child), (Some(Errno::PERM.raw_os_error()), 7));
    #[cfg(target_arch = "x86_64")]
    {
        if i386 == [None; 2] {
            return bulkhead_sys::testing::skip("the kernel has no 32-bit calls");
        }
        assert_eq!(i386, [Some(Err(Errno::NOSYS)); 2]);
        // without the filter the same call makes a socket: the test above can fail
        let free = bulkhead_sys::testing::socketcall32(1).map(|it| it.map(drop));
        assert_eq!(free, Some(Ok(())));
    }
}

/// Does something behind a filter of `config.json`, in a thread of its own.
fn confined<T: Send + 'static>(filter: Compiled, act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        bulkhead_sys::seccomp::install(&filter.instructions, filter.flags).unwrap();
        act()
    });
    thread.join().unwrap()
}

/// Docker's profile as others hand it over lets `socketcall(SYS_SOCKET)` through, and so makes
/// sockets of the families that it forbids.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_kernel_closes_socketcall_in_dockers_expanded_profile() {
    use bulkhead_sys::testing::{skip, socketcall32};
    use rustix::io::Errno;

    const AF_UNIX: u32 = 1;
    let expanded = samples::expanded(Capabilities::DEFAULT);
    let [open, closed] = [false, true].map(|close_socketcall| {
        let filter = compile_oci(&expanded, CompileOptions { close_socketcall }).unwrap().unwrap();
        confined(filter, || {
            let direct = bulkhead_sys::testing::socket(AF_UNIX.into()).map(drop);
            (socketcall32(AF_UNIX).map(|it| it.map(drop)), direct)
        })
    });
    if open.0.is_none() {
        return skip("the kernel has no 32-bit calls");
    }
    assert_eq!(open, (Some(Ok(())), Ok(())));
    assert_eq!(closed, (Some(Err(Errno::NOSYS)), Ok(())));
}

/// Without the listener that it asks for, the kernel says ENOSYS (seccomp_unotify(2)).
#[test]
fn the_kernel_takes_a_listener_and_answers_for_it_when_it_is_gone() {
    use bulkhead_sys::seccomp::install_with_listener;
    use rustix::io::Errno;
    use rustix::thread::{UnshareFlags, set_no_new_privs};

    let filter = compiled(&read(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/l",
            "flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV","SECCOMP_FILTER_FLAG_LOG"],
            "syscalls":[{"names":["unshare"],"action":"SCMP_ACT_NOTIFY"}]}"#,
    ));
    assert!(filter.listener);
    let thread = std::thread::spawn(move || {
        set_no_new_privs(true).unwrap();
        let listener = install_with_listener(&filter.instructions, filter.flags).unwrap();
        drop(listener);
        bulkhead_sys::unshare(UnshareFlags::NEWUTS)
    });
    let refused = thread.join().unwrap().unwrap_err().raw_os_error();
    assert_eq!(refused, Some(Errno::NOSYS.raw_os_error()));
}

#[test]
fn the_kernel_does_what_every_action_that_returns_says() {
    use rustix::io::Errno;
    use rustix::thread::UnshareFlags;

    for (action, want) in [
        (r#""action":"SCMP_ACT_ERRNO","errnoRet":99"#, 99),
        (r#""action":"SCMP_ACT_ERRNO""#, Errno::PERM.raw_os_error()),
        // no tracer
        (r#""action":"SCMP_ACT_TRACE","errnoRet":7"#, Errno::NOSYS.raw_os_error()),
    ] {
        let filter = compiled(&read(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["unshare"],{action},
                "args":[{{"index":0,"value":67108864,"valueTwo":67108864,"op":"SCMP_CMP_MASKED_EQ"}}]}}]}}"#
        )));
        let got = confined(filter, || {
            // CLONE_NEWUTS is bit 26; the other stays outside of the rule
            let other = bulkhead_sys::unshare(UnshareFlags::FS);
            (bulkhead_sys::unshare(UnshareFlags::NEWUTS).unwrap_err().raw_os_error(), other.is_ok())
        });
        assert_eq!(got, (Some(want), true), "{action}");
    }
}
