//! Moving a link of the host into a container's network namespace.

use std::io;
use std::os::fd::BorrowedFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::rtnetlink::{Change, Rtnetlink};
use crate::{NetworkError, link, netns};

/// Moves the link `name` of the calling thread's network namespace into `namespace`, where it is
/// called `new_name`, and brings it up there.
///
/// `new_name` may hold one `%d`, which the kernel replaces by a number that makes it unique. The link keeps
/// its attributes and its permanent addresses of global scope, of every family (config-linux.md,
/// "Network Devices"); other addresses and all routes are gone. Where the move is refused the link
/// stays as it was.
///
/// # Errors
/// There is no such link, `new_name` is taken there, or the kernel refuses: some links, such as `lo`,
/// belong to their namespace (`EINVAL`).
pub fn move_link(
    name: &str,
    namespace: BorrowedFd<'_>,
    new_name: &str,
) -> Result<(), NetworkError> {
    link::check_name(name)?;
    check_template(new_name)?;
    let failed = |what: &str| NetworkError::kernel(format!("{what} {name}"));
    let mut here = Rtnetlink::open().map_err(failed("open a netlink socket to move"))?;
    let mut there = netns::inside(namespace, Rtnetlink::open)
        .map_err(failed("enter the network namespace that is to get"))?;
    let found = match here.one(RouteNetlinkMessage::GetLink(link::named(name))) {
        Ok(RouteNetlinkMessage::NewLink(found)) => found,
        Ok(_) => return Err(NetworkError::NoSuchLink(name.to_owned())),
        Err(error) if error.raw_os_error() == Some(NO_DEVICE) => {
            return Err(NetworkError::NoSuchLink(name.to_owned()));
        }
        Err(error) => return Err(failed("look up")(error)),
    };
    let before = links(&mut there).map_err(failed("list links in the namespace of"))?;
    // A name that is taken would be found out only when the link is there already.
    if before.iter().any(|(_, known)| known == new_name) {
        return Err(NetworkError::LinkTaken(new_name.to_owned()));
    }
    // Before it goes down, which costs it its IPv6 addresses (ip-sysctl.rst, `keep_addr_on_down`).
    let index = found.header.index;
    let addresses = addresses(&mut here, index).map_err(failed("list the addresses of"))?;
    here.change_all(vec![link::down(index)]).map_err(failed("take down"))?;
    if let Err(error) = here.change_all(vec![into(index, namespace, new_name)]) {
        if found.header.flags.contains(LinkFlags::Up) {
            // the error to tell is the one above
            let _ = here.change_all(vec![link::up(link::indexed(index))]);
        }
        return Err(failed("move")(error));
    }
    let after = links(&mut there).map_err(failed("look for"))?;
    let moved = after
        .into_iter()
        .find(|(index, known)| {
            if new_name.contains('%') {
                !before.contains(&(*index, known.clone()))
            } else {
                known == new_name
            }
        })
        .ok_or_else(|| NetworkError::NoSuchLink(new_name.to_owned()))?;
    let mut changes: Vec<Change> =
        addresses.into_iter().map(|address| again(address, moved.0)).collect();
    changes.push(link::up(link::indexed(moved.0)));
    there.change_all(changes).map_err(failed("set up, in its new network namespace,"))
}

/// `ENODEV`
const NO_DEVICE: i32 = 19;

fn check_template(name: &str) -> Result<(), NetworkError> {
    let plain = name.replacen("%d", "0", 1);
    link::check_name(&plain).map_err(|_| NetworkError::InvalidLinkName(name.to_owned()))
}

fn links(route: &mut Rtnetlink) -> io::Result<Vec<(u32, String)>> {
    let all = route.all(link::any())?.into_iter();
    let link = |message| match message {
        RouteNetlinkMessage::NewLink(it) => {
            Some((it.header.index, link::name(&it).unwrap_or_default().to_owned()))
        }
        _ => None,
    };
    Ok(all.filter_map(link).collect())
}

/// The permanent ones of global scope.
fn addresses(route: &mut Rtnetlink, index: u32) -> io::Result<Vec<AddressMessage>> {
    let mut any = AddressMessage::default();
    any.header.family = AddressFamily::Unspec;
    let all = route.all(RouteNetlinkMessage::GetAddress(any))?.into_iter();
    let address = |message| match message {
        RouteNetlinkMessage::NewAddress(it) => Some(it),
        _ => None,
    };
    let stays = |address: &AddressMessage| {
        address.header.index == index
            && address.header.scope == AddressScope::Universe
            && (address.header.flags.contains(AddressHeaderFlags::Permanent)
                || flags(address).contains(AddressFlags::Permanent))
    };
    Ok(all.filter_map(address).filter(stays).collect())
}

fn flags(address: &AddressMessage) -> AddressFlags {
    let flags = address.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    flags.unwrap_or(AddressFlags::empty())
}

/// The same address for another link. Its label, which is the old name, is left out.
fn again(address: AddressMessage, index: u32) -> Change {
    let kept = flags(&address) & (AddressFlags::Noprefixroute | AddressFlags::Nodad);
    let mut message = AddressMessage::default();
    message.header.family = address.header.family;
    message.header.prefix_len = address.header.prefix_len;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    message.attributes = address
        .attributes
        .into_iter()
        .filter(|attribute| {
            matches!(
                attribute,
                AddressAttribute::Address(_)
                    | AddressAttribute::Local(_)
                    | AddressAttribute::Broadcast(_)
                    | AddressAttribute::RoutePriority(_)
            )
        })
        .collect();
    if !kept.is_empty() {
        message.attributes.push(AddressAttribute::Flags(kept));
    }
    (RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
}

/// Move and name in one, so that an equal name there is no obstacle.
fn into(index: u32, namespace: BorrowedFd<'_>, name: &str) -> Change {
    use std::os::fd::AsRawFd;
    let mut message = link::indexed(index);
    message.attributes.extend([
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::NetNsFd(namespace.as_raw_fd()),
    ]);
    (RouteNetlinkMessage::SetLink(message), 0)
}
