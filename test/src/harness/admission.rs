//! What the API server tells of the webhooks it asks. Reads its metrics.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::Client;

/// The metric that counts calls.
const METRIC: &str = "apiserver_admission_webhook_admission_duration_seconds_count{";

/// How often the API server of a cluster has called each webhook since it started.
pub async fn calls(client: &Client) -> Result<BTreeMap<String, u64>> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    parse(&client.request_text(request).await?)
}

fn parse(metrics: &str) -> Result<BTreeMap<String, u64>> {
    let mut calls = BTreeMap::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(METRIC)) {
        let (labels, count) = line.rsplit_once("} ").context("a metric without a value")?;
        let name = labels.split("name=\"").nth(1).and_then(|rest| rest.split('"').next());
        *calls.entry(name.unwrap_or_default().to_owned()).or_default() += count.parse::<u64>()?;
    }
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_a_webhook_are_added_up() {
        let metrics = [
            "# TYPE apiserver_admission_webhook_admission_duration_seconds histogram",
            r#"apiserver_admission_webhook_admission_duration_seconds_count{name="a",operation="CREATE",type="admit"} 3"#,
            r#"apiserver_admission_webhook_admission_duration_seconds_count{name="a",operation="UPDATE",type="admit"} 4"#,
            r#"apiserver_admission_webhook_admission_duration_seconds_sum{name="a",operation="CREATE",type="admit"} 0.1"#,
        ];
        assert_eq!(parse(&metrics.join("\n")).unwrap(), BTreeMap::from([("a".to_owned(), 7)]));
    }
}
