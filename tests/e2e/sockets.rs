//! Sockets: which are made, what is set on them, who is reached through unix sockets, who
//! may be waited for, and what comes from elsewhere.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{self as unix, UnixDatagram, UnixListener};

use agentguard_tests::manifest::Manifest;
use agentguard_tests::ports;
use agentguard_tests::runner::Test;
use agentguard_tests::suite::Suite;
use agentguard_tests::wait;
use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use serde_json::{Value, json};

use crate::{any, lsm};

pub const TESTS: &[Test] = &[
    any("sockets::what_no_rule_can_name_needs_a_privilege", kinds),
    lsm("sockets::options_that_lead_elsewhere_need_it_too", options),
    any("sockets::a_source_route_does_not_leave", source_route),
    lsm("sockets::netlink_answers_and_changes_nothing", netlink),
    any("sockets::listening_has_rules_of_its_own", listening),
    lsm("sockets::a_server_answers_its_clients", serving),
    lsm("sockets::unix_sockets_are_known_by_their_names", unix_names),
    lsm("sockets::a_run_talks_to_itself", among_themselves),
    lsm("sockets::a_socket_from_elsewhere_gives_no_right", received),
    lsm("sockets::a_connection_does_not_outlive_its_rule", outlived),
];

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AF_PACKET: i32 = 17;
const STREAM: i32 = 1;
const DATAGRAM: i32 = 2;
const RAW: i32 = 3;

fn socket(family: i32, kind: i32, protocol: i32) -> Value {
    json!({ "op": "make_socket", "family": family, "kind": kind, "protocol": protocol })
}

fn kinds(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    // TCP and UDP, also by their numbers. (UDP-Lite is gone in 7.3.)
    for allowed in [
        socket(AF_INET, STREAM, 0),
        socket(AF_INET6, STREAM, 6),
        socket(AF_INET6, DATAGRAM, 17),
    ] {
        tagged.may(&allowed)?;
    }
    for raw in [socket(AF_INET, RAW, 1), socket(AF_INET6, RAW, 58)] {
        tagged.must_not(&raw)?;
        free.may(&raw)?;
    }
    if suite.without_lsm.is_none() {
        tagged.must_not(&socket(AF_PACKET, RAW, 0))?;
        free.may(&socket(AF_PACKET, RAW, 0))?;
    }
    suite.install(&suite.ruled("raw", "enforce").privileges(&["raw-sockets"]))?;
    suite.reload()?;
    let mut privileged = suite.tagged("raw")?;
    privileged.may(&socket(AF_INET, RAW, 1))?;
    privileged.may(&socket(AF_PACKET, RAW, 0))?;
    drop(privileged);
    suite.remove("raw")
}

/// A loose source route through 127.0.0.1.
const ROUTE: &str = "8307047f00000100";

fn options(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    let set = |level: i32, option: i32, value: &str| json!({ "op": "set_option", "level": level, "option": option, "value": value });
    // IP_OPTIONS, SO_MARK, SO_BINDTODEVICE
    for (level, option, value) in [(0, 4, ROUTE), (1, 36, "01000000"), (1, 25, "6c6f00")] {
        tagged.must_not(&set(level, option, value))?;
        free.may(&set(level, option, value))?;
    }
    // IP_TOS, SO_REUSEADDR
    tagged.may(&set(0, 1, "04000000"))?;
    tagged.may(&set(1, 2, "01000000"))?;
    Ok(())
}

/// What no system call's address shows: the second line sees the packet.
fn source_route(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let to = suite.servers.listed_v4.udp;
    let address = to.ip().to_string();
    let before = suite.servers.listed_v4.visits();
    tagged.must_not(&json!({
        "op": "send_with_options", "address": address, "port": to.port(), "value": ROUTE,
    }))?;
    ensure!(
        suite.servers.listed_v4.visits() == before,
        "the datagram came"
    );
    tagged.may(&json!({ "op": "udp_sendto", "address": address, "port": to.port() }))?;
    Ok(())
}

fn netlink(suite: &mut Suite) -> Result<()> {
    let mut tagged = suite.tagged("worker")?;
    let mut free = suite.untagged()?;
    let message = |kind: u16| json!({ "op": "netlink", "message": kind });
    // RTM_GETLINK, RTM_SETLINK
    tagged.may(&message(18))?;
    tagged.must_not(&message(19))?;
    free.may(&message(19))?;
    Ok(())
}

/// A port that is free now.
fn server(suite: &Suite, port: u16) -> Manifest {
    suite
        .ruled("server", "enforce")
        .rules("listen", "allow", &[format!("127.0.0.1:{port}")])
}

fn listening(suite: &mut Suite) -> Result<()> {
    let port = ports::unused()?;
    suite.install(&server(suite, port))?;
    suite.reload()?;
    let mut tagged = suite.tagged("server")?;
    let bind = |address: &str, port: u16, kind: i32| json!({ "op": "bind", "address": address, "port": port, "kind": kind });
    for kind in [STREAM, DATAGRAM] {
        tagged.may(&bind("127.0.0.1", port, kind))?;
        tagged.must_not(&bind("0.0.0.0", port, kind))?;
        tagged.must_not(&bind("127.0.0.2", port, kind))?;
        tagged.must_not(&bind("127.0.0.1", port ^ 1, kind))?;
        tagged.must_not(&bind("::1", port, kind))?;
        tagged.may(&bind("127.0.0.1", 0, kind))?;
    }
    drop(tagged);
    suite.remove("server")
}

fn serving(suite: &mut Suite) -> Result<()> {
    let port = ports::unused()?;
    suite.install(&server(suite, port))?;
    suite.reload()?;
    let mut tagged = suite.tagged("server")?;
    let listen = |port: u16| json!({ "op": "listen", "address": "127.0.0.1", "port": port });
    // Bound to port 0 freely; to be connected to there is another thing.
    tagged.must_not(&listen(0))?;
    tagged.may(&listen(port))?;
    // No rule says that it may send to this client; it let it in.
    let client = std::thread::spawn(move || -> Result<String> {
        let mut client = TcpStream::connect(("127.0.0.1", port))?;
        client.write_all(b"probe")?;
        let mut said = String::new();
        client.read_to_string(&mut said)?;
        Ok(said)
    });
    tagged.may(&json!({ "op": "answer_one" }))?;
    let said = client.join().ok().context("the client ended early")??;
    ensure!(said == "probe", "the server said {said:?}");
    drop(tagged);
    suite.remove("server")
}

fn unix_names(suite: &mut Suite) -> Result<()> {
    suite.places.fresh("sockets")?;
    let (yes, no, link) = (
        suite.places.at("sockets/yes"),
        suite.places.at("sockets/no"),
        suite.places.at("sockets/link"),
    );
    let (yes_server, no_server) = (UnixListener::bind(&yes)?, UnixListener::bind(&no)?);
    let [good, bad] =
        ["good", "bad"].map(|name| format!("agentguard-{name}-{}", std::process::id()));
    let named = |name: &str| UnixListener::bind_addr(&unix::SocketAddr::from_abstract_name(name)?);
    let (good_server, bad_server) = (named(&good)?, named(&bad)?);
    let (yes_box, no_box) = (format!("{yes}.box"), format!("{no}.box"));
    let boxes = (UnixDatagram::bind(&yes_box)?, UnixDatagram::bind(&no_box)?);
    // Another name in an allowed place is still the socket that was bound to the first.
    std::os::unix::fs::symlink(&no, &link)?;
    let alias = format!("{yes}-alias");
    std::fs::hard_link(&no, &alias)?;
    let rules = [
        format!("unix:{yes}*"),
        format!("unix:{link}"),
        format!("unix:@{good}"),
    ];
    suite.install(
        &suite
            .ruled("talker", "enforce")
            .rules("connect", "allow", &rules)
            .rules("listen", "allow", &[format!("unix:@{good}-own")]),
    )?;
    suite.reload()?;
    let mut tagged = suite.tagged("talker")?;
    let mut free = suite.untagged()?;
    let connect =
        |name: &str, kind: i32| json!({ "op": "unix_connect", "name": name, "kind": kind });
    let send = |name: &str| json!({ "op": "unix_send", "name": name });
    for allowed in [
        connect(&yes, STREAM),
        connect(&format!("@{good}"), STREAM),
        connect(&yes_box, DATAGRAM),
        send(&yes_box),
        json!({ "op": "unix_bind", "name": format!("@{good}-own") }),
        json!({ "op": "unix_bind", "name": "" }),
    ] {
        tagged.may(&allowed)?;
    }
    for refused in [
        connect(&no, STREAM),
        connect(&link, STREAM),
        connect(&alias, STREAM),
        connect(&format!("@{bad}"), STREAM),
        connect(&no_box, DATAGRAM),
        send(&no_box),
        json!({ "op": "unix_bind", "name": format!("@{bad}-own") }),
    ] {
        tagged.must_not(&refused)?;
        free.may(&refused)?;
    }
    drop((
        yes_server,
        no_server,
        good_server,
        bad_server,
        boxes,
        tagged,
    ));
    suite.remove("talker")
}

fn among_themselves(suite: &mut Suite) -> Result<()> {
    let path = suite.places.at("ok/own-socket");
    let mut tagged = suite.tagged("worker")?;
    tagged.may(&json!({ "op": "unix_among_themselves", "name": path }))?;
    Ok(())
}

/// Also not one that was asked to listen, as if its peer had been let in.
fn outlived(suite: &mut Suite) -> Result<()> {
    let to = suite.servers.listed_v4.tcp;
    let before = suite.ruled("holder", "enforce");
    suite.install(&before.clone().default("listen", "allow"))?;
    suite.reload()?;
    let mut tagged = suite.tagged("holder")?;
    let hold = json!({ "op": "hold", "address": to.ip().to_string(), "port": to.port() });
    let send = json!({ "op": "send_held" });
    for _ in 0..2 {
        tagged.may(&hold)?;
        tagged.may(&json!({ "op": "listen_held" }))?;
        tagged.may(&send)?;
    }
    let none = Manifest::new("holder", "enforce").default("listen", "allow");
    suite.install(&none)?;
    suite.reload()?;
    tagged.must_not(&send)?;
    drop(tagged);
    suite.remove("holder")
}

/// Sends descriptors to a socket that an agent binds.
pub fn hand_over(to: &str, descriptors: &[RawFd]) -> Result<()> {
    let from = UnixDatagram::unbound()?;
    let address = UnixAddr::new(to)?;
    let control = [ControlMessage::ScmRights(descriptors)];
    wait::until("the agent takes descriptors", || {
        let data = [IoSlice::new(b"here")];
        let sent = sendmsg(
            from.as_fd().as_raw_fd(),
            &data,
            &control,
            MsgFlags::empty(),
            Some(&address),
        );
        Ok(sent.is_ok().then_some(()))
    })
}

fn received(suite: &mut Suite) -> Result<()> {
    let at = suite.places.at("ok/inbox");
    for (server, may) in [
        (&suite.servers.listed_v4, true),
        (&suite.servers.listed_v6, true),
        (&suite.servers.unlisted_v4, false),
        (&suite.servers.unlisted_v6, false),
    ] {
        for way in ["send_received", "write_received"] {
            let connected = TcpStream::connect(server.tcp)?;
            let mut tagged = suite.tagged("worker")?;
            let (to, descriptor) = (at.clone(), connected.as_raw_fd());
            let giver = std::thread::spawn(move || hand_over(&to, &[descriptor]));
            tagged.may(&json!({ "op": "receive", "name": at }))?;
            giver.join().ok().context("the giver ended early")??;
            let request = json!({ "op": way });
            if may {
                tagged.may(&request)?;
            } else {
                tagged.must_not(&request)?;
                // Whose socket it is uses it as before.
                (&connected).write_all(b"mine")?;
            }
        }
    }
    Ok(())
}
