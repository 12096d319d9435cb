//! Requests to the API server, counted and timed where they leave the controllers.

use std::time::Instant;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use ropewalk_core::metrics::url_template;

use super::series::scope;
use super::workqueue::{SCOPE, SECONDS};

/// How long answers take and what they are.
#[derive(Clone, Debug)]
pub(super) struct Requests {
    durations: HistogramVec,
    answers: IntCounterVec,
}

impl Requests {
    pub(super) fn new() -> prometheus::Result<Self> {
        let durations = Opts::new(
            "http_client_request_duration_seconds",
            "Seconds from a request to the API server to the head of its answer",
        );
        let durations =
            HistogramOpts { common_opts: durations.const_labels(scope(SCOPE)), buckets: SECONDS.to_vec() };
        let answers =
            Opts::new("kn_k8s_client_http_response_status_code_total", "Answers of the API server by status");
        Ok(Self {
            durations: HistogramVec::new(durations, &["http_request_method", "url_template"])?,
            answers: IntCounterVec::new(
                answers.const_labels(scope(SCOPE)),
                &["http_request_method", "http_response_status_code"],
            )?,
        })
    }

    /// A client around `client`.
    pub(super) fn counting(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let requests = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, requests) = (client.clone(), requests.clone());
            async move {
                let method = request.method().clone();
                let template = url_template(request.uri().path());
                let begun = Instant::now();
                let answer = client.send(request).await;
                let seconds = begun.elapsed().as_secs_f64();
                requests.durations.with_label_values(&[method.as_str(), &template]).observe(seconds);
                // Upstream, too, counts a request without an answer under an error that is no number.
                let status = answer.as_ref().map(Response::status);
                let status = status.as_ref().map_or("<error>", StatusCode::as_str);
                requests.answers.with_label_values(&[method.as_str(), status]).inc();
                answer
            }
        });
        Client::new(service, namespace)
    }
}

impl Collector for Requests {
    fn desc(&self) -> Vec<&Desc> {
        self.durations.desc().into_iter().chain(self.answers.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.durations.collect().into_iter().chain(self.answers.collect()).collect()
    }
}
