use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use orchestrator_core::id::{LogPosition, NodeId};
use orchestrator_core::replicated::{Command, Stamped};
use serde_json::{Value, json};

use super::*;
use crate::config::{ConsulSettings, ConsulWrites};
use crate::env::{DedicatedRuntime, TokioEnv, spawn};

/// A pair: value, flags, index.
type Kept = BTreeMap<String, (String, u64, u64)>;

/// Consul's key-value part, as far as it is asked.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<(Kept, u64)>>);

impl Store {
    fn with<T>(&self, work: impl FnOnce(&mut Kept, &mut u64) -> T) -> T {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (pairs, index) = &mut *held;
        work(pairs, index)
    }

    fn cas(&self, key: &str, value: String, flags: u64, wanted: u64) -> bool {
        self.with(|pairs, index| {
            if pairs.get(key).map_or(0, |(_, _, index)| *index) != wanted {
                return false;
            }
            *index += 1;
            pairs.insert(key.to_owned(), (value, flags, *index));
            true
        })
    }

    fn values(&self) -> Vec<(String, String)> {
        self.with(|pairs, _| {
            pairs
                .iter()
                .map(|(key, (value, ..))| (key.clone(), value.clone()))
                .collect()
        })
    }

    async fn serve(&self) -> String {
        async fn read(State(store): State<Store>, Path(key): Path<String>) -> (StatusCode, Body) {
            store.with(|pairs, _| match pairs.get(&key) {
                None => (StatusCode::NOT_FOUND, Body::empty()),
                Some((value, flags, index)) => {
                    let row = json!([{"Key": key, "Value": STANDARD.encode(value), "Flags": flags, "ModifyIndex": index}]);
                    (StatusCode::OK, Body::from(row.to_string()))
                }
            })
        }
        async fn write(
            State(store): State<Store>,
            Path(key): Path<String>,
            Query(query): Query<BTreeMap<String, u64>>,
            body: Bytes,
        ) -> String {
            let value = String::from_utf8(body.to_vec()).unwrap();
            store
                .cas(&key, value, query["flags"], query["cas"])
                .to_string()
        }
        async fn transact(State(store): State<Store>, body: Bytes) -> StatusCode {
            let operations: Vec<Value> = serde_json::from_slice(&body).unwrap();
            let before = store.with(|pairs, _| pairs.clone());
            for operation in operations {
                let pair = &operation["KV"];
                let value = STANDARD.decode(pair["Value"].as_str().unwrap()).unwrap();
                let written = store.cas(
                    pair["Key"].as_str().unwrap(),
                    String::from_utf8(value).unwrap(),
                    pair["Flags"].as_u64().unwrap(),
                    pair["Index"].as_u64().unwrap(),
                );
                if !written {
                    store.with(|pairs, _| *pairs = before);
                    return StatusCode::CONFLICT;
                }
            }
            StatusCode::OK
        }
        let router = Router::new()
            .route("/v1/kv/{*key}", get(read).put(write))
            .route("/v1/txn", axum::routing::put(transact))
            .with_state(self.clone());
        let mut listener = TokioEnv::bind("127.0.0.1:0").await.unwrap();
        let address = TokioEnv::local_address(&listener).unwrap();
        spawn::<TokioEnv>(async move {
            while let Ok((stream, _)) = TokioEnv::accept(&mut listener).await {
                let service = TowerToHyperService::new(router.clone());
                spawn::<TokioEnv>(async move {
                    let served =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = served.await;
                });
            }
        });
        address
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = DedicatedRuntime::start("kv-test", 2).unwrap();
    runtime.run(test);
    runtime.stop();
}

const BOTH: [ConsulWrites; 2] = [ConsulWrites::Single, ConsulWrites::Transactions];

async fn consul(store: &Store, writes: ConsulWrites) -> Consul {
    Consul::new(&ConsulSettings {
        address: store.serve().await,
        https: false,
        authorities: None,
        token: crate::config::Secret::default(),
        cross_data_center: false,
        writes,
        operations_per_transaction: 5,
    })
}

fn entry(host: &str, decided: u64) -> Entry {
    Entry {
        alias: String::from("shop"),
        primary: InstanceKey::new(host, 3306),
        decided,
    }
}

/// Of a decision, written in term 1.
const fn of(decided: u64) -> Version {
    in_term(decided, 1)
}

const fn in_term(decided: u64, term: u64) -> Version {
    let decided = NOW + decided;
    Version { decided, term }
}

/// A time in milliseconds, as log time is.
const NOW: u64 = 1_796_000_000_000;

fn five(host: &str, decided: u64) -> Pairs {
    five_at(host, decided, 1)
}

/// At the address 10.0.0.`last`.
fn five_at(host: &str, decided: u64, last: u8) -> Pairs {
    let address = IpAddr::from([10, 0, 0, last]);
    pairs("mysql/master/", &entry(host, decided), Some(&[address]))
}

#[test]
fn a_primary_is_five_pairs() {
    run(async {
        for writes in BOTH {
            let store = Store::default();
            let consul = consul(&store, writes).await;
            consul
                .put::<TokioEnv>(&five("db1", 7), of(7))
                .await
                .unwrap();
            let expected = [
                ("mysql/master/shop", "db1:3306"),
                ("mysql/master/shop/hostname", "db1"),
                ("mysql/master/shop/ipv4", "10.0.0.1"),
                ("mysql/master/shop/ipv6", ""),
                ("mysql/master/shop/port", "3306"),
            ];
            let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(store.values(), expected);
            // The same again writes nothing.
            let index = store.with(|_, index| *index);
            consul
                .put::<TokioEnv>(&five("db1", 8), of(8))
                .await
                .unwrap();
            assert_eq!(store.with(|_, index| *index), index);
        }
    });
}

/// A name server that answers nobody takes no addresses out of the store, and leaves none of another primary there.
#[test]
fn addresses_that_are_not_known_stay_until_there_is_another_primary() {
    run(async {
        for writes in BOTH {
            let store = Store::default();
            let consul = consul(&store, writes).await;
            let unresolved =
                |host: &str, version| pairs("mysql/master/", &entry(host, version), None);
            let address = |store: &Store| store.values()[2].clone();
            let named = |value: &str| (String::from("mysql/master/shop/ipv4"), value.to_owned());
            consul
                .put::<TokioEnv>(&five("db1", 7), of(7))
                .await
                .unwrap();
            consul
                .put::<TokioEnv>(&unresolved("db1", 8), of(8))
                .await
                .unwrap();
            assert_eq!(address(&store), named("10.0.0.1"));
            consul
                .put::<TokioEnv>(&unresolved("db2", 9), of(9))
                .await
                .unwrap();
            assert_eq!(store.values()[0].1, "db2:3306");
            assert_eq!(address(&store), named(""));
        }
    });
}

#[test]
fn a_later_decision_is_never_replaced_by_an_earlier_one() {
    run(async {
        for writes in BOTH {
            let store = Store::default();
            let consul = consul(&store, writes).await;
            consul
                .put::<TokioEnv>(&five("db1", 7), of(7))
                .await
                .unwrap();
            consul
                .put::<TokioEnv>(&five("db2", 9), of(9))
                .await
                .unwrap();
            assert_eq!(store.values()[0].1, "db2:3306");
            consul
                .put::<TokioEnv>(&five("db1", 8), of(8))
                .await
                .unwrap();
            assert_eq!(store.values()[0].1, "db2:3306");
        }
    });
}

/// Where decisions do not tell who knows more, the term does: log time stood still, and a daemon lags behind an election.
#[test]
fn another_primary_of_an_earlier_term_is_not_written() {
    run(async {
        for writes in BOTH {
            let store = Store::default();
            let consul = consul(&store, writes).await;
            let put = async |pairs: &Pairs, version| {
                consul.put::<TokioEnv>(pairs, version).await.unwrap();
                store.values()[0].1.clone()
            };
            let (first, second) = (five("db1", 7), five("db2", 7));
            assert_eq!(put(&first, in_term(7, 3)).await, "db1:3306");
            assert_eq!(put(&second, in_term(7, 4)).await, "db2:3306");
            assert_eq!(put(&first, in_term(7, 3)).await, "db2:3306");
            // A cluster that was formed anew begins with low terms, and decides later.
            assert_eq!(put(&five("db1", 8), in_term(8, 1)).await, "db1:3306");
        }
    });
}

/// One that went on from an older export: the same decision in a lower term, and its primary has moved since.
#[test]
fn the_addresses_of_one_primary_are_renewed_in_any_term() {
    run(async {
        for writes in BOTH {
            let store = Store::default();
            let consul = consul(&store, writes).await;
            let before = five_at("db1", 7, 1);
            consul
                .put::<TokioEnv>(&before, in_term(7, 9))
                .await
                .unwrap();
            let moved = five_at("db1", 7, 2);
            consul.put::<TokioEnv>(&moved, in_term(7, 3)).await.unwrap();
            assert_eq!(store.values()[2].1, "10.0.0.2");
            // One that decided earlier knows nothing of it.
            let early = five_at("db1", 6, 3);
            consul.put::<TokioEnv>(&early, in_term(6, 9)).await.unwrap();
            assert_eq!(store.values()[2].1, "10.0.0.2");
        }
    });
}

#[test]
fn a_version_is_one_number_that_grows_with_it() {
    let versions = [in_term(0, 0), in_term(0, 5), in_term(1, 0), in_term(1, 1)];
    assert!(versions.is_sorted_by(|one, next| one.packed() < next.packed()));
    for version in versions {
        assert_eq!(Version::unpacked(version.packed()), version);
    }
    // More elections than there is room for say no more than the greatest.
    assert!(in_term(0, u64::MAX).packed() < in_term(1, 0).packed());
    let all = u64::MAX;
    assert_eq!(
        Version {
            decided: all,
            term: all
        }
        .packed(),
        all
    );
}

/// Before there were terms, a time was all.
#[test]
fn a_pair_without_a_term_is_as_old_as_its_time() {
    run(async {
        for writes in BOTH {
            let store = Store::default();
            let consul = consul(&store, writes).await;
            let key = "mysql/master/shop";
            assert!(store.cas(key, String::from("db2:3306"), NOW + 7, 0));
            consul
                .put::<TokioEnv>(&five("db1", 6), in_term(6, 9))
                .await
                .unwrap();
            assert_eq!(store.values()[0].1, "db2:3306");
            consul
                .put::<TokioEnv>(&five("db1", 8), in_term(8, 1))
                .await
                .unwrap();
            assert_eq!(store.values()[0].1, "db1:3306");
        }
    });
}

#[test]
fn a_store_that_does_not_answer_is_named() {
    run(async {
        let consul = Consul::new(&ConsulSettings {
            address: String::from("127.0.0.1:1"),
            https: false,
            authorities: None,
            token: crate::config::Secret::default(),
            cross_data_center: false,
            writes: ConsulWrites::Single,
            operations_per_transaction: 5,
        });
        let why = consul
            .put::<TokioEnv>(&five("db1", 7), of(7))
            .await
            .unwrap_err();
        assert!(why.contains("ConsulAddress 127.0.0.1:1"), "{why}");
    });
}

#[test]
fn clusters_with_an_alias_are_published() {
    let mut state = Replicated::default();
    let mut index = 0;
    let mut apply = |state: &mut Replicated, command| {
        index += 1;
        let at = LogPosition {
            index,
            term: 1,
            node: NodeId(1),
        };
        let wall = Wall::from_nanos(index * 1_000_000_000);
        state.apply(at, &Stamped { wall, command });
    };
    let keys: Vec<InstanceKey> = ["db1", "db2"]
        .map(|host| InstanceKey::new(host, 3306))
        .into();
    apply(
        &mut state,
        Command::Know {
            keys: keys.clone(),
            by_operator: true,
        },
    );
    apply(
        &mut state,
        Command::RecordCluster {
            primary: keys[0].clone(),
            identity: None,
            members: keys,
        },
    );
    assert_eq!(entries(&state), []);
    apply(
        &mut state,
        Command::SetClusterAlias {
            cluster_name: String::from("db1:3306"),
            alias: String::from("shop"),
            by_operator: false,
        },
    );
    assert_eq!(entries(&state), [entry("db1", 2_000)]);
}
