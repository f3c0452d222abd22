//! Channels that look up the same name: how often the server is asked, what each of them hears,
//! and what is left when they are gone.

use hickory_resolver::proto::op::ResponseCode;
use tokio::runtime::{Builder, Handle};

use super::{
    double::{Does::*, Double},
    *,
};

const QUESTION: &str = "A greeter.test. udp";

fn target(server: &Double) -> String {
    format!("dns://{}/greeter.test:8000", server.address)
}

/// Channels that were built one by one, each with a factory of its own.
fn channels(
    registry: &Arc<Registry>,
    count: usize,
    target: &str,
    options: &DnsOptions,
) -> Vec<Running> {
    (0..count).map(|_| Running::of(&factory(registry, options.clone()), target)).collect()
}

async fn all_hear(channels: &mut [Running], expected: &[&str]) {
    for channel in channels {
        assert_eq!(channel.update().await, expected);
    }
}

/// Lets pass at least the least interval of [`options`], and all tasks that are ready run.
async fn an_interval_passes(server: &Double) {
    server.set("clock.test.", Has(0, ips(&["127.0.0.2"])));
    let _clock = Running::start(&format!("dns://{}/clock.test", server.address), options());
    server.asked_at_least("A clock.test. udp", server.asked("A clock.test. udp") + 3).await;
}

/// The UDP sockets of this machine that are connected to an address of 127.0.0.1. Only Linux tells.
fn udp_sockets_to(server: SocketAddr) -> usize {
    let remote = format!("0100007F:{:04X}", server.port());
    let table = std::fs::read_to_string("/proc/self/net/udp").unwrap_or_default();
    table.lines().filter(|line| line.split_whitespace().nth(2) == Some(&remote)).count()
}

#[tokio::test]
async fn a_hundred_channels_ask_once_per_ttl() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(1, ips(&["127.0.0.2"])));
    let mut channels = channels(&Arc::default(), 100, &target(&server), &options());
    all_hear(&mut channels, &["127.0.0.2:8000"]).await;
    assert_eq!(server.log(), [QUESTION]);
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.3"])));
    all_hear(&mut channels, &["127.0.0.3:8000"]).await;
    an_interval_passes(&server).await;
    assert_eq!(server.asked(QUESTION), 2);
}

#[tokio::test]
async fn a_request_of_one_channel_serves_all() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let mut channels = channels(&Arc::default(), 100, &target(&server), &options());
    all_hear(&mut channels, &["127.0.0.2:8000"]).await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.3"])));
    channels[42].request();
    all_hear(&mut channels, &["127.0.0.3:8000"]).await;
    assert_eq!(server.asked(QUESTION), 2);

    // All at once: what comes while a look-up is under way is a reason for one more, and no more.
    an_interval_passes(&server).await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.4"])));
    channels.iter().for_each(Running::request);
    all_hear(&mut channels, &["127.0.0.4:8000"]).await;
    an_interval_passes(&server).await;
    an_interval_passes(&server).await;
    assert!((3..=4).contains(&server.asked(QUESTION)), "{}", server.asked(QUESTION));
    channels.iter_mut().for_each(Running::nothing_new);
}

#[tokio::test]
async fn each_channel_keeps_its_own_port_and_a_late_one_is_told_what_is_known() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2", "127.0.0.3"])));
    let registry = Arc::default();
    let factory = factory(&registry, options());
    let mut first = Running::of(&factory, &target(&server));
    assert_eq!(first.update().await, ["127.0.0.2:8000", "127.0.0.3:8000"]);
    let other_port = format!("dns://{}/GREETER.test:9000", server.address);
    let mut late = Running::of(&factory, &other_port);
    assert_eq!(late.update().await, ["127.0.0.2:9000", "127.0.0.3:9000"]);
    assert_eq!(server.log(), [QUESTION]);
    assert_eq!(registry.len(), 1);
    first.nothing_new();
}

#[tokio::test]
async fn channels_find_each_other_in_the_process_but_not_with_other_options() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let start =
        |options: DnsOptions| Running::of(&DnsResolverFactory::new(options, 7), &target(&server));
    let (mut one, mut two) = (start(options()), start(options()));
    one.update().await;
    two.update().await;
    assert_eq!(server.asked(QUESTION), 1);
    let mut strict = start(DnsOptions { stale_max: Duration::from_secs(1), ..options() });
    strict.update().await;
    assert_eq!(server.asked(QUESTION), 2);
    // Nor with another server.
    let other = Double::start().await;
    other.set("greeter.test.", Has(3600, ips(&["127.0.0.9"])));
    let mut elsewhere = Running::of(&DnsResolverFactory::new(options(), 7), &target(&other));
    assert_eq!(elsewhere.update().await, ["127.0.0.9:8000"]);
}

#[tokio::test]
async fn failures_and_the_end_of_trust_reach_every_channel() {
    let server = Double::start().await;
    let options = DnsOptions { stale_max: Duration::from_millis(200), ..options() };
    let mut channels = channels(&Arc::default(), 10, &target(&server), &options);
    for channel in &mut channels {
        let (message, expired) = channel.error().await;
        assert!(message.contains("NXDOMAIN") && !expired, "{message}");
    }
    server.set("greeter.test.", Has(0, ips(&["127.0.0.2"])));
    for channel in &mut channels {
        assert_eq!(channel.recovery().await, ["127.0.0.2:8000"]);
    }
    server.set("greeter.test.", Code(ResponseCode::ServFail));
    for channel in &mut channels {
        let (message, expired) = channel.error().await;
        assert!(message.contains("SERVFAIL") && expired, "{message}");
    }
}

#[tokio::test]
async fn a_channel_that_comes_while_look_ups_fail_looks_by_itself() {
    let server = Double::start().await;
    // After the first failure nobody would look for an hour.
    let hour = Duration::from_secs(3600);
    let options = DnsOptions { interval_min: hour, interval_max: hour, ..options() };
    let registry = Arc::default();
    let mut first = Running::of(&factory(&registry, options.clone()), &target(&server));
    first.error().await;
    // Within the least interval the newcomer is told what the others were told.
    let mut second = Running::of(&factory(&registry, options.clone()), &target(&server));
    let (message, _) = second.error().await;
    assert!(message.contains("NXDOMAIN"), "{message}");
    assert_eq!(server.asked(QUESTION), 1);

    // After it, it is not: it looks, and all learn.
    let options = self::options();
    let mut first = Running::of(&factory(&registry, options.clone()), &target(&server));
    server.asked_at_least(QUESTION, 8).await;
    an_interval_passes(&server).await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let mut second = Running::of(&factory(&registry, options), &target(&server));
    assert_eq!(second.update().await, ["127.0.0.2:8000"]);
    assert_eq!(first.recovery().await, ["127.0.0.2:8000"]);
}

#[tokio::test]
async fn a_channel_that_comes_during_a_look_up_waits_for_it_and_not_for_an_old_failure() {
    let server = Double::start().await;
    let options = DnsOptions { timeout: Duration::from_secs(3), ..options() };
    let registry = Arc::default();
    let mut first = Running::of(&factory(&registry, options.clone()), &target(&server));
    first.error().await;
    server.set("greeter.test.", Silence);
    server.asked_at_least(QUESTION, server.asked(QUESTION) + 1).await;
    let mut second = Running::of(&factory(&registry, options), &target(&server));
    tokio::task::yield_now().await;
    // The silent server is asked again, and knows by then.
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    assert_eq!(second.update().await, ["127.0.0.2:8000"]);
    assert_eq!(first.recovery().await, ["127.0.0.2:8000"]);
}

#[tokio::test]
async fn a_request_during_a_look_up_is_a_reason_for_another_one() {
    let server = Double::start().await;
    server.set("greeter.test.", Truncates(Box::new(Silence)));
    let mut channels = channels(&Arc::default(), 2, &target(&server), &options());
    server.asked_at_least("A greeter.test. tcp", 1).await;
    channels[1].request();
    tokio::task::yield_now().await;
    // The answer may be from before the reason of the request, as this one is.
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    all_hear(&mut channels, &["127.0.0.2:8000"]).await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.3"])));
    all_hear(&mut channels, &["127.0.0.3:8000"]).await;
}

#[tokio::test]
async fn another_channel_takes_over_when_the_one_that_asks_is_dropped() {
    let server = Double::start().await;
    server.set("greeter.test.", Truncates(Box::new(Silence)));
    // Longer than the test's patience: nobody gives up by time.
    let options = DnsOptions { timeout: Duration::from_secs(600), ..options() };
    let mut channels = channels(&Arc::default(), 3, &target(&server), &options);
    server.asked_at_least("A greeter.test. tcp", 1).await;
    for dropped in 1..=2 {
        // Tasks start in the order in which they were spawned.
        drop(channels.remove(0));
        server.closed_at_least(dropped).await;
        if dropped == 2 {
            server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
        }
        server.asked_at_least(QUESTION, dropped + 1).await;
        if dropped == 1 {
            server.asked_at_least("A greeter.test. tcp", 2).await;
        }
    }
    all_hear(&mut channels, &["127.0.0.2:8000"]).await;
}

#[test]
fn a_runtime_that_stands_still_holds_up_nobody_else() {
    let live = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let still = Builder::new_current_thread().enable_all().build().unwrap();
    let server = live.block_on(Double::start());
    server.set("greeter.test.", Silence);
    let registry = Arc::default();
    let options = DnsOptions { timeout: Duration::from_millis(200), ..options() };
    let factory = factory(&registry, options);
    // Its task asks; then nobody runs it any more.
    let asking = still.block_on(async {
        let asking = Running::of(&factory, &target(&server));
        server.asked_at_least(QUESTION, 1).await;
        asking
    });
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let mut other = live.block_on(async { Running::of(&factory, &target(&server)) });
    assert_eq!(live.block_on(other.update()), ["127.0.0.2:8000"]);

    // Its end does no harm to the look-up that replaced its own.
    drop((asking, still));
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.3"])));
    other.request();
    assert_eq!(live.block_on(other.update()), ["127.0.0.3:8000"]);
}

#[tokio::test]
async fn nothing_is_left_when_the_last_channel_is_gone() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(0, ips(&["127.0.0.2"])));
    server.set("slow.test.", Truncates(Box::new(Silence)));
    server.set("silent.test.", Silence);
    let metrics = Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let registry = Arc::default();
    let mut idle = channels(&registry, 20, &target(&server), &options());
    all_hear(&mut idle, &["127.0.0.2:8000"]).await;
    let to = |name: &str| format!("dns://{}/{name}:8000", server.address);
    let slow = channels(&registry, 20, &to("slow.test"), &options());
    let silent = channels(&registry, 20, &to("silent.test"), &options());
    server.asked_at_least("A slow.test. tcp", 1).await;
    server.asked_at_least("A silent.test. udp", 1).await;
    assert_eq!(registry.len(), 3);
    assert!(udp_sockets_to(server.address) >= 1 || !cfg!(target_os = "linux"));

    // One user is enough to keep the look-up going.
    idle.truncate(1);
    let asked = server.asked(QUESTION);
    server.asked_at_least(QUESTION, asked + 3).await;
    assert_eq!(registry.len(), 3);

    drop((idle, slow, silent));
    let gone = async {
        while metrics.num_alive_tasks() > before || udp_sockets_to(server.address) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("tasks or sockets are left");
    server.closed_at_least(1).await;
    assert_eq!(registry.len(), 0);
}

#[tokio::test]
async fn a_thousand_channels_come_and_go_and_leave_no_entry() {
    let server = Double::start().await;
    server.set("greeter.test.", Has(3600, ips(&["127.0.0.2"])));
    let registry = Arc::default();
    let factory = factory(&registry, options());
    for _ in 0..1000 {
        let mut channel = Running::of(&factory, &target(&server));
        assert_eq!(channel.update().await, ["127.0.0.2:8000"]);
        let task = channel.task.abort_handle();
        drop(channel);
        let ended = async {
            while !task.is_finished() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, ended).await.expect("a resolver is left");
        assert_eq!(registry.len(), 0);
    }
    assert_eq!(server.asked(QUESTION), 1000);
}
