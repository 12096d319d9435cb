//! Networks of pods on this machine, for real. Needs root and, for what is outside and for counting, `ip` and `nft`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::net::if_::if_nameindex;
use nix::sched::{CloneFlags, setns};
use ropewalk_network::Network;

/// What takes microseconds where packets arrive, and never happens where they are dropped.
const ARRIVES: Duration = Duration::from_secs(1);

/// As many as make a median steady.
const MEASURED: usize = 20;

/// A network in a directory of its own that ends with the test, however that ends.
struct World {
    directory: tempfile::TempDir,
    network: Network,
}

impl World {
    /// `None`, said loudly, where it cannot be.
    fn new() -> Option<Self> {
        if lacks(!nix::unistd::geteuid().is_root(), "root") {
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let network = Network::open(directory.path()).expect("a network");
        Some(Self { directory, network })
    }

    /// As the next process finds it.
    fn reopen(&mut self) {
        self.network = Network::open(self.directory.path()).expect("a network");
    }

    fn pod(&self, uid: &str) -> Pod {
        let address = self.network.prepare(uid).expect("prepared");
        Pod { address, namespace: File::open(self.network.namespace(uid)).expect("its namespace") }
    }

    fn gateway(&self) -> Ipv4Addr {
        self.network.gateway()
    }

    fn is_ours(&self, address: Ipv4Addr) -> bool {
        address.octets()[..3] == self.gateway().octets()[..3]
    }

    /// How many links, routes, addresses, tables and mounts the network has on this machine.
    fn counted(&self) -> [usize; 5] {
        let links = if_nameindex().expect("devices");
        let links = links.iter().filter(|link| {
            let address = link.name().to_str().ok().and_then(|name| name.strip_prefix("rw"));
            let address = address.and_then(|digits| u32::from_str_radix(digits, 16).ok());
            address.is_some_and(|address| self.is_ours(address.into()))
        });
        let prefix = self.gateway().to_string();
        let prefix = prefix.trim_end_matches('1');
        let lines = |text: String| text.lines().filter(|line| line.contains(prefix)).count();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let mounts =
            mounts.lines().filter(|line| line.contains(self.directory.path().to_str().expect("text")));
        [
            links.count(),
            lines(said("ip", ["-4", "route", "show", "table", "main"])),
            lines(said("ip", ["-4", "address", "show", "dev", "lo"])),
            lines(said("nft", ["list", "tables"])),
            mounts.count(),
        ]
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ended = ropewalk_network::end(self.directory.path());
        assert!(std::thread::panicking() || ended.is_ok(), "{ended:?}");
    }
}

struct Pod {
    address: Ipv4Addr,
    namespace: File,
}

impl Pod {
    fn listen(&self, port: u16) -> TcpListener {
        within(&self.namespace, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))).expect("listens")
    }

    fn connect(&self, to: impl Into<IpAddr>, port: u16) -> io::Result<TcpStream> {
        let to = SocketAddr::new(to.into(), port);
        within(&self.namespace, || TcpStream::connect_timeout(&to, ARRIVES))
    }
}

/// A socket belongs to the namespace it was made in, whoever uses it.
fn within<T: Send>(namespace: &File, make: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("entered");
            make()
        });
        thread.join().expect("done")
    })
}

/// Says who is there on each side and that bytes arrive: the client's address as the server sees it.
fn met(listener: &TcpListener, client: io::Result<TcpStream>) -> IpAddr {
    let mut client = client.expect("connected");
    let (mut server, peer) = listener.accept().expect("accepted");
    server.write_all(b"hello").expect("sent");
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).expect("received");
    assert_eq!(text, "hello");
    peer.ip()
}

fn said<const N: usize>(program: &str, arguments: [&str; N]) -> String {
    let output = Command::new(program).args(arguments).output().expect("started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Says so when something is lacking; the gate lacks nothing.
#[expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
fn lacks(is_lacking: bool, what: &str) -> bool {
    if is_lacking {
        eprintln!("SKIPPED: networks of pods, which needs {what}");
        assert!(std::env::var_os("ROPEWALK_REQUIRE_TOOLS").is_none(), "the gate needs {what}");
    }
    is_lacking
}

fn lacks_tools() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&str| std::env::split_paths(&path).any(|directory| directory.join(tool).exists());
    ["ip", "nft"].iter().any(|tool| lacks(!is_there(tool), tool))
}

#[test]
fn pods_serve_on_one_port_and_reach_each_other_and_the_machine() {
    let Some(world) = World::new() else { return };
    let (one, two) = (world.pod("one"), world.pod("two"));
    assert_ne!(one.address, two.address);
    // Of those only root may serve on elsewhere.
    let (at_one, at_two) = (one.listen(80), two.listen(80));
    assert_eq!(met(&at_one, two.connect(one.address, 80)), two.address);
    assert_eq!(met(&at_two, one.connect(two.address, 80)), one.address);
    assert_eq!(met(&at_one, one.connect(Ipv4Addr::LOCALHOST, 80)), Ipv4Addr::LOCALHOST);
    let from_here = TcpStream::connect_timeout(&(one.address, 80).into(), ARRIVES);
    assert_eq!(met(&at_one, from_here), world.gateway());
    let here = TcpListener::bind((world.gateway(), 0)).expect("listens");
    let port = here.local_addr().expect("an address").port();
    assert_eq!(met(&here, two.connect(world.gateway(), port)), two.address);
    let private = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
    let port = private.local_addr().expect("an address").port();
    two.connect(Ipv4Addr::LOCALHOST, port).expect_err("loopback is the pod's own");
    let nobody = Ipv4Addr::from(u32::from(world.gateway()) + 200);
    let refused = one.connect(nobody, 80).expect_err("no pod has it");
    assert_eq!(refused.kind(), io::ErrorKind::HostUnreachable, "not asked of the machine's own gateway");
}

/// A network namespace beside this machine, as another machine would be.
struct Outside {
    name: String,
    address: Ipv4Addr,
    here: Ipv4Addr,
    namespace: File,
}

impl Outside {
    fn new() -> Self {
        let name = format!("rwout{}", std::process::id());
        // Addresses for documentation, which lead nowhere else.
        let (here, address) = (Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, 2));
        let ip = |line: &str| {
            let output = Command::new("ip").args(line.split(' ')).output().expect("started");
            assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
        };
        ip(&format!("netns add {name}"));
        let namespace = File::open(Path::new("/run/netns").join(&name)).expect("its file");
        let outside = Self { name: name.clone(), address, here, namespace };
        ip(&format!("link add {name} type veth peer name out netns {name}"));
        ip(&format!("address add {here}/24 dev {name}"));
        ip(&format!("link set {name} up"));
        ip(&format!("-n {name} address add {address}/24 dev out"));
        ip(&format!("-n {name} link set out up"));
        ip(&format!("-n {name} route add default via {here}"));
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        for arguments in [["link", "del", &self.name], ["netns", "del", &self.name]] {
            // It may be half made.
            let _ = Command::new("ip").args(arguments.map(OsStr::new)).output();
        }
    }
}

#[test]
fn others_see_this_machine_and_reach_no_pod_unasked() {
    let Some(world) = World::new() else { return };
    if lacks_tools() {
        return;
    }
    let outside = Outside::new();
    let pod = world.pod("pod");
    let there = within(&outside.namespace, || TcpListener::bind((outside.address, 80))).expect("listens");
    assert_eq!(
        met(&there, pod.connect(outside.address, 80)),
        outside.here,
        "the pod's own means nothing there"
    );

    let (in_pod, at_gateway) = (pod.listen(80), TcpListener::bind((world.gateway(), 0)).expect("listens"));
    let port = at_gateway.local_addr().expect("an address").port();
    for (target, port) in [(pod.address, 80), (world.gateway(), port)] {
        let tried =
            within(&outside.namespace, || TcpStream::connect_timeout(&(target, port).into(), ARRIVES));
        tried.expect_err("what it sends is dropped");
    }
    // They are there for those who may.
    met(&in_pod, TcpStream::connect_timeout(&(pod.address, 80).into(), ARRIVES));
    met(&at_gateway, pod.connect(world.gateway(), port));

    // Nor do pods of another network of this machine.
    let Some(other) = World::new() else { return };
    assert_ne!(other.gateway(), world.gateway());
    other.pod("pod").connect(pod.address, 80).expect_err("what it sends is dropped");
}

#[test]
fn the_next_process_goes_on_with_what_is_there() {
    let Some(mut world) = World::new() else { return };
    let range = world.network.range();
    let (one, two) = (world.pod("one"), world.pod("two"));
    let listener = one.listen(8080);
    world.reopen();
    assert_eq!(world.network.range(), range);
    assert_eq!(world.network.address("one"), Some(one.address));
    assert_eq!(met(&listener, two.connect(one.address, 8080)), two.address, "undisturbed");
    assert_eq!(world.pod("one").address, one.address, "prepared once");
    assert_eq!(met(&listener, two.connect(one.address, 8080)), two.address, "still the same");
    let three = world.pod("three");
    assert!(![one.address, two.address].contains(&three.address));

    // As if it had been killed while it made the third one's.
    fs::remove_file(world.directory.path().join("three/address.json")).expect("removed");
    world.reopen();
    assert_eq!(world.network.address("three"), None);
    let three = world.pod("three");
    assert_eq!(met(&listener, three.connect(one.address, 8080)), three.address);
}

#[test]
fn an_address_is_free_again_and_nothing_is_left() {
    let Some(mut world) = World::new() else { return };
    if lacks_tools() {
        return;
    }
    // The claim is a route of the range, and a pod has one more.
    assert_eq!(world.counted(), [0, 1, 1, 1, 0]);
    let one = world.pod("one");
    world.pod("two");
    assert_eq!(world.counted(), [2, 3, 1, 1, 2]);
    // Somebody still uses the namespace, and what leads into it goes all the same.
    world.network.release("one").expect("released");
    assert_eq!(world.counted(), [1, 2, 1, 1, 1]);
    assert_eq!(world.network.address("one"), None);
    world.network.release("one").expect("twice is no harm");
    world.reopen();
    assert_eq!(world.counted(), [1, 2, 1, 1, 1]);
    world.pod("three");
    ropewalk_network::end(world.directory.path()).expect("ended");
    assert_eq!(world.counted(), [0; 5]);
    assert!(!world.directory.path().exists());
    ropewalk_network::end(world.directory.path()).expect("twice is no harm");
    drop(one);
}

#[test]
fn what_was_chosen_before_the_machine_was_started_counts_no_more() {
    let Some(mut world) = World::new() else { return };
    let Some(other) = World::new() else { return };
    ropewalk_network::end(world.directory.path()).expect("ended");
    // The range is somebody else's by now.
    fs::create_dir_all(world.directory.path()).expect("made");
    let stale = format!(r#"{{"network": "{}", "boot": "another"}}"#, other.gateway());
    fs::write(world.directory.path().join("range.json"), stale).expect("written");
    world.reopen();
    assert_ne!(world.gateway(), other.gateway());
}

#[test]
fn the_time_it_takes() {
    let Some(world) = World::new() else { return };
    let timed = |work: &dyn Fn(usize)| {
        let mut times: Vec<_> = (0..MEASURED)
            .map(|number| {
                let start = Instant::now();
                work(number);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[MEASURED / 2]
    };
    let prepared = timed(&|number| _ = world.network.prepare(&number.to_string()).expect("prepared"));
    let released = timed(&|number| world.network.release(&number.to_string()).expect("released"));
    println!(
        "figures: a pod's network is made in {prepared:?} and removed in {released:?} (medians of {MEASURED})"
    );
    for number in 0..MEASURED {
        assert_eq!(world.network.address(&number.to_string()), None);
    }
}
