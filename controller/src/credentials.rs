//! Reads the service account of a pod that is to be made, and what there is to know of its secrets: by name, each time,
//! kept for no longer than that. What they hold stays with the API server.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use http::HeaderValue;
use http::header::ACCEPT;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, GetParams};
use kube::{Client, core};
use ropewalk_api::config::FeatureFlags;
use ropewalk_core::credentials::{Account, Answer, Secret};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::reconcile::Error;

/// Secrets of one account read at once: few have more.
const AT_ONCE: usize = 4;

/// The form in which kubectl gets what it prints: a secret's type is in there, and what it holds is not.
const AS_TABLE: HeaderValue = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
const AS_OBJECT: HeaderValue = HeaderValue::from_static("application/json");

/// The account, if a plan wants one, and its secrets.
pub(crate) async fn look_up(
    client: &Client,
    namespace: &str,
    name: Option<String>,
    features: &FeatureFlags,
) -> Result<Option<Answer<Account>>, Error> {
    let Some(name) = name else { return Ok(None) };
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let mut account = match answer(api.get(&name).await, "ServiceAccount", &name)? {
        Answer::Found(account) => Account::new(&account),
        Answer::Missing => return Ok(Some(Answer::Missing)),
        Answer::Refused(text) => return Ok(Some(Answer::Refused(text))),
    };
    let secrets = stream::iter(account.wanted().to_owned())
        .map(|name| async move {
            let secret = read(client, namespace, &name, features).await?;
            Ok::<_, Error>((name, secret))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    account.secrets = secrets;
    Ok(Some(Answer::Found(account)))
}

async fn read(
    client: &Client,
    namespace: &str,
    name: &str,
    features: &FeatureFlags,
) -> Result<Answer<Secret>, Error> {
    let mut secret = match get::<Value>(client, namespace, name, AS_TABLE).await? {
        Answer::Found(table) => match Secret::of_table(&table) {
            Some(secret) => secret,
            None => return Ok(Answer::Refused(format!("the API server has no table of secret \"{name}\""))),
        },
        Answer::Missing => return Ok(Answer::Missing),
        Answer::Refused(text) => return Ok(Answer::Refused(text)),
    };
    if secret.wants_keys(features) {
        secret.keys = match get::<Keys>(client, namespace, name, AS_OBJECT).await? {
            Answer::Found(keys) => Some(keys.names()),
            Answer::Missing => return Ok(Answer::Missing),
            Answer::Refused(text) => return Ok(Answer::Refused(text)),
        };
    }
    Ok(Answer::Found(secret))
}

/// The keys of a secret: nothing but the object itself tells them, and their values are dropped as they are read.
#[derive(Deserialize)]
struct Keys {
    #[expect(clippy::zero_sized_map_values, reason = "the API server's object is a map")]
    data: Option<BTreeMap<String, IgnoredAny>>,
}

impl Keys {
    fn names(self) -> BTreeSet<String> {
        self.data.unwrap_or_default().into_keys().collect()
    }
}

async fn get<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    name: &str,
    form: HeaderValue,
) -> Result<Answer<T>, Error> {
    let collection = core::Request::new(format!("/api/v1/namespaces/{namespace}/secrets"));
    let answered = match collection.get(name, &GetParams::default()) {
        Ok(mut request) => {
            request.headers_mut().insert(ACCEPT, form);
            client.request::<T>(request).await
        }
        Err(error) => Err(kube::Error::BuildRequest(error)),
    };
    answer(answered, "Secret", name)
}

fn answer<T>(answered: kube::Result<T>, kind: &str, name: &str) -> Result<Answer<T>, Error> {
    match answered {
        Ok(object) => Ok(Answer::Found(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Answer::Missing),
        // Others may get better by themselves.
        Err(kube::Error::Api(status)) if matches!(status.code, 400..=407 | 409..=428) => {
            Ok(Answer::Refused(status.message))
        }
        Err(source) => {
            Err(Error::Observe { kind: kind.to_owned(), name: name.to_owned(), source: Box::new(source) })
        }
    }
}

#[cfg(test)]
mod tests;
