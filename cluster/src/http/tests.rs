use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower::ServiceExt;

use super::*;

async fn ask(router: Router, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = router.oneshot(request).await.expect("an answer");
    let status = answer.status();
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8(body.to_vec()).expect("text"))
}

#[rstest::rstest]
#[case(Ok(()), Err("no certificate yet"))]
#[case(Err("it stands still"), Ok(()))]
#[tokio::test]
async fn probes_say_what_is_wrong(
    #[case] alive: Result<(), &'static str>,
    #[case] ready: Result<(), &'static str>,
) {
    let answers = |of: Result<(), &'static str>| match of {
        Ok(()) => (StatusCode::OK, "ok".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_owned()),
    };
    let router = probes(move || alive.map_err(str::to_owned), move || ready.map_err(str::to_owned));
    for (path, of) in [("/livez", alive), ("/health", alive), ("/readyz", ready), ("/readiness", ready)] {
        assert_eq!(ask(router.clone(), path).await, answers(of), "{path}");
    }
}

/// An endpoint, and a connection to it on which nothing has been said.
async fn connected() -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(answer(listener, probes(|| Ok(()), || Ok(()))));
    TcpStream::connect(address).await.expect("a connection")
}

#[tokio::test]
async fn a_connection_has_one_answer() {
    let mut client = connected().await;
    client.write_all(b"GET /livez HTTP/1.1\r\nhost: pod\r\n\r\n").await.expect("it listens");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("it closes");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[rstest::rstest]
#[case::silent(b"")]
#[case::slow(b"GET /livez HTTP/1.1\r\nhost: ")]
#[tokio::test(start_paused = true)]
async fn who_does_not_ask_is_not_kept(#[case] said: &[u8]) {
    let mut client = connected().await;
    client.write_all(said).await.expect("it listens");
    let begun = tokio::time::Instant::now();
    assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
    assert!(begun.elapsed() <= EXCHANGE + Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn cpu_time_is_not_told_in_whole_seconds() {
    let (_, text) = ask(metrics(Registry::new()), "/metrics").await;
    let told = text.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
    let told: f64 = told.and_then(|told| told.parse().ok()).expect("a number");
    assert!(told > 0.0 && told.fract() != 0.0, "{told}");
}

#[tokio::test]
async fn metrics_are_text() {
    let registry = Registry::new();
    let counter = prometheus::IntCounter::new("strands_total", "Strands laid").expect("a counter");
    registry.register(Box::new(counter.clone())).expect("the only one");
    counter.inc();
    let (status, text) = ask(metrics(registry), "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    assert!(text.contains("\nstrands_total 1\n"), "{text}");
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in {text}");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let error = serve(port, Router::new()).await.expect_err("it is taken");
    assert_eq!(error.to_string(), format!("cannot listen on port {port}"));
}
