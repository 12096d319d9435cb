//! What a server has from the start, and every namespace with it. Pure.

use jiff::Timestamp;
use serde_json::json;

use super::{ObjectKey, State};
use crate::{
    access, builtin,
    object::{self, stamp},
    table::{Behaviour, DEFINITIONS},
};

impl State {
    /// Makes the namespaces and definitions every server has, where they are missing.
    pub(super) fn furnish(&mut self, now: Timestamp) {
        let namespaces = self.table.by_behaviour(Behaviour::Namespace);
        for name in ["default", "kube-system"] {
            let Some(id) = namespaces else { break };
            if self.get(id, &ObjectKey::new("", name)).is_some() {
                continue;
            }
            let mut namespace =
                json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            builtin::prepare_create(Behaviour::Namespace, &mut namespace);
            self.create(id, namespace, now);
        }
        self.load_definitions(now);
    }

    fn load_definitions(&mut self, now: Timestamp) {
        let definitions = self.table.take_definitions();
        let Some((id, _)) = self.table.find("apiextensions.k8s.io", "v1", DEFINITIONS) else {
            return;
        };
        for mut definition in definitions {
            if let Some(known) = self.get(id, &ObjectKey::of(&definition)).cloned() {
                if known["spec"] != definition["spec"] {
                    let mut updated = (*known).clone();
                    updated["spec"] = definition["spec"].take();
                    self.put(id, updated);
                }
                continue;
            }
            definition["status"] = json!({
                "acceptedNames": definition["spec"]["names"],
                "conditions": [
                    { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts",
                      "message": "no conflicts found", "lastTransitionTime": stamp(now) },
                    { "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                      "message": "the initial names have been accepted", "lastTransitionTime": stamp(now) },
                ],
            });
            self.create(id, definition, now);
        }
    }

    /// Puts the server's authority into every namespace that there is and will be.
    pub(crate) fn publish_authority(&mut self, pem: &str, now: Timestamp) {
        self.authority = Some(pem.into());
        let Some(id) = self.table.by_behaviour(Behaviour::Namespace) else { return };
        let living = self.objects[id.0].iter().filter(|(_, namespace)| !object::is_deleting(namespace));
        let namespaces: Vec<ObjectKey> = living.map(|(key, _)| key.clone()).collect();
        for namespace in namespaces {
            self.add_authority(&namespace.name, now);
        }
    }

    fn add_authority(&mut self, namespace: &str, now: Timestamp) {
        let Some(pem) = self.authority.clone() else { return };
        let Some((id, _)) = self.table.find("", "v1", "configmaps") else { return };
        let data = json!({ "ca.crt": &*pem });
        if let Some(known) = self.get(id, &ObjectKey::new(namespace, access::ROOT_CA)).cloned() {
            if known["data"] != data {
                let mut updated = (*known).clone();
                updated["data"] = data;
                self.put(id, updated);
            }
            return;
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": access::ROOT_CA, "namespace": namespace },
            "data": data,
        });
        self.create(id, map, now);
    }

    /// What comes with a namespace.
    pub(super) fn furnish_namespace(&mut self, namespace: &str, now: Timestamp) {
        self.add_service_account(namespace, now);
        self.add_authority(namespace, now);
    }

    fn add_service_account(&mut self, namespace: &str, now: Timestamp) {
        if let Some((id, _)) = self.table.find("", "v1", "serviceaccounts") {
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": { "name": "default", "namespace": namespace },
            });
            self.create(id, account, now);
        }
    }
}
