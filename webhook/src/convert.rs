//! `ConversionReview` in, `ConversionReview` out: objects from one served version to another. Pure.
//!
//! A review has one answer for all its objects, so one that cannot be converted is named.

use kube::core::Status;
use kube::core::conversion::{ConversionRequest, ConversionResponse, ConversionReview};
use ropewalk_api::conversion;

/// Answers a review. API servers decode what they have stored one by one, and so ask about single objects; a review may
/// hold many all the same.
pub(crate) fn answer(review: ConversionReview) -> ConversionReview {
    let mut request: ConversionRequest = match review.try_into() {
        Ok(request) => request,
        Err(error) => return ConversionResponse::invalid(failure(&error.to_string())).into_review(),
    };
    let objects = std::mem::take(&mut request.objects);
    let converted: Result<Vec<_>, _> =
        objects.into_iter().map(|object| conversion::convert(object, &request.desired_api_version)).collect();
    let response = ConversionResponse::for_request(request);
    match converted {
        Ok(objects) => response.success(objects),
        Err(error) => response.failure(failure(&error.to_string())),
    }
    .into_review()
}

/// Longest text of a failure, in bytes: names come from whoever asks.
const MESSAGE_LIMIT: usize = 1 << 10;

fn failure(message: &str) -> Status {
    Status::failure(&message[..message.floor_char_boundary(MESSAGE_LIMIT)], "BadRequest")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn task(version: &str, name: &str, step: &Value) -> Value {
        json!({
            "apiVersion": format!("tekton.dev/{version}"), "kind": "Task", "metadata": {"name": name, "uid": name},
            "spec": {"steps": [step]},
        })
    }

    fn ask(objects: &[Value], version: &str) -> Value {
        let review = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": "u", "desiredAPIVersion": format!("tekton.dev/{version}"), "objects": objects},
        });
        let answer = serde_json::to_value(answer(serde_json::from_value(review).unwrap())).unwrap();
        assert_eq!(answer["apiVersion"], "apiextensions.k8s.io/v1");
        assert_eq!(answer["kind"], "ConversionReview");
        assert_eq!(answer.get("request"), None);
        answer["response"].clone()
    }

    #[test]
    fn objects_come_back_in_their_order() {
        let objects: Vec<_> = (0..500)
            .map(|index| task("v1", &format!("t{index}"), &json!({"computeResources": {}})))
            .collect();
        let response = ask(&objects, "v1beta1");
        assert_eq!(response["uid"], "u");
        assert_eq!(response["result"]["status"], "Success");
        let expected: Vec<_> =
            (0..500).map(|index| task("v1beta1", &format!("t{index}"), &json!({"resources": {}}))).collect();
        assert_eq!(response["convertedObjects"], json!(expected));
    }

    #[test]
    fn those_that_are_in_the_version_already_stay() {
        let objects = [task("v1", "a", &json!({"image": "i"})), task("v1beta1", "b", &json!({"image": "i"}))];
        let response = ask(&objects, "v1");
        assert_eq!(response["convertedObjects"][0], objects[0]);
        assert_eq!(response["convertedObjects"][1], task("v1", "b", &json!({"image": "i"})));
    }

    #[test]
    fn one_that_is_not_ours_is_named() {
        let good = task("v1", "good", &json!({}));
        for (bad, version, message) in [
            (
                task("v2", "bad", &json!({})),
                "v1",
                r#"cannot convert Task "bad": there is no version "tekton.dev/v2" of it, only "v1", "v1beta1""#,
            ),
            (
                task("v1", "bad", &json!({})),
                "v1alpha1",
                r#"cannot convert Task "good": there is no version "tekton.dev/v1alpha1" of it, only "v1", "v1beta1""#,
            ),
            (json!(["x"]), "v1", r#"cannot convert kind "" of "", which has no versions here"#),
            (
                json!({"apiVersion": "v1", "kind": "Pod"}),
                "v1",
                r#"cannot convert kind "Pod" of "v1", which has no versions here"#,
            ),
        ] {
            let response = ask(&[good.clone(), bad], version);
            assert_eq!(response["result"]["status"], "Failure");
            assert_eq!(response["result"]["message"], message);
            assert_eq!(response["convertedObjects"], json!([]));
        }
    }

    #[test]
    fn a_review_without_a_request_fails() {
        let review = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"});
        let answer = answer(serde_json::from_value(review).unwrap());
        assert!(answer.response.unwrap().result.is_failure());
    }
}
