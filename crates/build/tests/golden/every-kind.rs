#[doc = include_str!("every-kind.md")]
#[allow(
    clippy::all,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    private_bounds,
    private_interfaces,
    unreachable_pub,
    unused_imports
)]
pub mod every_kind {
    /// The topology `every-kind` of `topologies/demo.toml`.
    pub static TOPOLOGY: ::leatworks::def::TopologyDef = ::leatworks::def::TopologyDef {
        name: "every-kind",
        project: "demo",
        version: "1.2.3",
        description: "One task of each kind, and names that Rust keeps for itself.",
        codec: ::leatworks::def::Codec::MessagePack,
        tasks: &[
            &tasks::LINES,
            &tasks::LOOP,
            &tasks::MATCH,
            &tasks::SUM,
            &tasks::WORKER,
            &tasks::SUM_ODD,
            &tasks::A,
            &tasks::C,
            &tasks::KEEP,
        ],
        edges: &[
            ::leatworks::def::EdgeDef {
                id: "[*]-->lines",
                from: None,
                to: "lines",
                label: None,
                topic: "every-kind-lines",
                subscription: "lines",
                retry_topic: "every-kind-lines-lines-RETRY",
                dead_letter_topic: "every-kind-lines-lines-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "[*]-->a",
                from: None,
                to: "a",
                label: None,
                topic: "every-kind-a",
                subscription: "a",
                retry_topic: "every-kind-a-a-RETRY",
                dead_letter_topic: "every-kind-a-a-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "lines-->loop",
                from: Some("lines"),
                to: "loop",
                label: None,
                topic: "every-kind-lines.out",
                subscription: "loop",
                retry_topic: "every-kind-lines.out-loop-RETRY",
                dead_letter_topic: "every-kind-lines.out-loop-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "loop-->match",
                from: Some("loop"),
                to: "match",
                label: None,
                topic: "every-kind-loop.out",
                subscription: "match",
                retry_topic: "every-kind-loop.out-match-RETRY",
                dead_letter_topic: "every-kind-loop.out-match-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "loop-->sum",
                from: Some("loop"),
                to: "sum",
                label: None,
                topic: "every-kind-loop.out",
                subscription: "sum",
                retry_topic: "every-kind-loop.out-sum-RETRY",
                dead_letter_topic: "every-kind-loop.out-sum-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "match-->|even-number|worker",
                from: Some("match"),
                to: "worker",
                label: Some("even-number"),
                topic: "every-kind-match.out.even-number",
                subscription: "worker",
                retry_topic: "every-kind-match.out.even-number-worker-RETRY",
                dead_letter_topic: "every-kind-match.out.even-number-worker-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "match-->|odd-number|sum-odd",
                from: Some("match"),
                to: "sum-odd",
                label: Some("odd-number"),
                topic: "every-kind-match.out.odd-number",
                subscription: "sum-odd",
                retry_topic: "every-kind-match.out.odd-number-sum-odd-RETRY",
                dead_letter_topic: "every-kind-match.out.odd-number-sum-odd-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "worker-->keep",
                from: Some("worker"),
                to: "keep",
                label: None,
                topic: "every-kind-worker.out",
                subscription: "keep",
                retry_topic: "every-kind-worker.out-keep-RETRY",
                dead_letter_topic: "every-kind-worker.out-keep-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "a-->|b|c",
                from: Some("a"),
                to: "c",
                label: Some("b"),
                topic: "every-kind-a.out.b",
                subscription: "c",
                retry_topic: "every-kind-a.out.b-c-RETRY",
                dead_letter_topic: "every-kind-a.out.b-c-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "c-->keep",
                from: Some("c"),
                to: "keep",
                label: None,
                topic: "every-kind-c.out",
                subscription: "keep",
                retry_topic: "every-kind-c.out-keep-RETRY",
                dead_letter_topic: "every-kind-c.out-keep-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "sum-->keep",
                from: Some("sum"),
                to: "keep",
                label: None,
                topic: "every-kind-sum.out",
                subscription: "keep",
                retry_topic: "every-kind-sum.out-keep-RETRY",
                dead_letter_topic: "every-kind-sum.out-keep-DLQ",
            },
            ::leatworks::def::EdgeDef {
                id: "sum-odd-->keep",
                from: Some("sum-odd"),
                to: "keep",
                label: None,
                topic: "every-kind-sum-odd.out",
                subscription: "keep",
                retry_topic: "every-kind-sum-odd.out-keep-RETRY",
                dead_letter_topic: "every-kind-sum-odd.out-keep-DLQ",
            },
        ],
        drawings: ::leatworks::def::Drawings {
            mermaid: include_str!("every-kind.mermaid"),
            dot: include_str!("every-kind.dot"),
            svg: include_str!("every-kind.svg"),
            text: include_str!("every-kind.txt"),
        },
    };
    ///The tasks, each as its binary serves it.
    pub mod tasks {
        /// The task `lines` (topologies/demo.toml:8).
        ///
        /// lines
        pub static LINES: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "lines",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Source,
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: Some(::leatworks::def::BuiltinDef {
                kind: "lines",
                options: "{\"path\":\"in.txt\"}",
            }),
            routes: &[
                ::leatworks::def::RouteDef {
                    label: None,
                    topic: "every-kind-lines.out",
                },
            ],
            ends: &[],
        };
        /// The task `loop` (topologies/demo.toml:8).
        pub static LOOP: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "loop",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Rust(
                ::leatworks::open_task::<super::types::loop_::Task>,
            ),
            retry: ::leatworks::def::Retry {
                attempts: 7,
                backoff: ::core::time::Duration::new(1, 500000000),
                max_backoff: ::core::time::Duration::new(60, 0),
            },
            timeout: ::core::time::Duration::new(2, 0),
            parallelism: 3,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: None,
                    topic: "every-kind-loop.out",
                },
            ],
            ends: &[],
        };
        /// The task `match` (topologies/demo.toml:8).
        ///
        /// sort
        pub static MATCH: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "match",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Rust(
                ::leatworks::open_routed::<super::types::match_::Task>,
            ),
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: Some("even-number"),
                    topic: "every-kind-match.out.even-number",
                },
                ::leatworks::def::RouteDef {
                    label: Some("odd-number"),
                    topic: "every-kind-match.out.odd-number",
                },
            ],
            ends: &["zero"],
        };
        /// The task `sum` (topologies/demo.toml:8).
        pub static SUM: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "sum",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Fold(
                ::leatworks::open_fold::<super::types::sum::Task>,
            ),
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: None,
                    topic: "every-kind-sum.out",
                },
            ],
            ends: &[],
        };
        /// The task `worker` (topologies/demo.toml:9).
        ///
        /// a worker in another language
        pub static WORKER: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "worker",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Worker {
                url: "http://127.0.0.1:9000/work",
            },
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: None,
                    topic: "every-kind-worker.out",
                },
            ],
            ends: &[],
        };
        /// The task `sum-odd` (topologies/demo.toml:10).
        pub static SUM_ODD: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "sum-odd",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Fold(
                ::leatworks::open_fold::<super::types::sum_odd::Task>,
            ),
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: None,
                    topic: "every-kind-sum-odd.out",
                },
            ],
            ends: &[],
        };
        /// The task `a` (topologies/demo.toml:12).
        pub static A: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "a",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Job(::leatworks::def::JobDef {
                options: "{\"command\":[\"sh\",\"-c\",\"echo \'\\\"\' > out/x\"],\"memory\":67108864,\"permanent\":[65]}",
            }),
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: Some("b"),
                    topic: "every-kind-a.out.b",
                },
            ],
            ends: &[],
        };
        /// The task `c` (topologies/demo.toml:12).
        pub static C: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "c",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Rust(
                ::leatworks::open_task::<super::types::c::Task>,
            ),
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[
                ::leatworks::def::RouteDef {
                    label: None,
                    topic: "every-kind-c.out",
                },
            ],
            ends: &[],
        };
        /// The task `keep` (topologies/demo.toml:11).
        ///
        /// file
        pub static KEEP: ::leatworks::def::TaskDef = ::leatworks::def::TaskDef {
            project: "demo",
            topology: "every-kind",
            name: "keep",
            version: "1.2.3",
            codec: ::leatworks::def::Codec::MessagePack,
            kind: ::leatworks::def::Kind::Sink(::leatworks::def::BuiltinDef {
                kind: "jsonl",
                options: "{\"path\":\"out.jsonl\"}",
            }),
            retry: ::leatworks::def::Retry {
                attempts: 3,
                backoff: ::core::time::Duration::new(0, 200000000),
                max_backoff: ::core::time::Duration::new(30, 0),
            },
            timeout: ::core::time::Duration::new(30, 0),
            parallelism: 1,
            source: None,
            routes: &[],
            ends: &[],
        };
    }
    ///One type per edge: the compiler's messages name the edge by it.
    pub mod edges {
        /// Edge `lines --> loop` (topologies/demo.toml:8).
        pub struct lines__loop;
        /// Edge `loop --> match` (topologies/demo.toml:8).
        pub struct loop__match;
        /// Edge `loop --> sum` (topologies/demo.toml:8).
        pub struct loop__sum;
        /// Edge `match -->|even-number| worker` (topologies/demo.toml:9).
        pub struct match__even_number__worker;
        /// Edge `match -->|odd-number| sum-odd` (topologies/demo.toml:10).
        pub struct match__odd_number__sum_odd;
        /// Edge `worker --> keep` (topologies/demo.toml:11).
        pub struct worker__keep;
        /// Edge `a -->|b| c` (topologies/demo.toml:12).
        pub struct a__b__c;
        /// Edge `c --> keep` (topologies/demo.toml:12).
        pub struct c__keep;
        /// Edge `sum --> keep` (topologies/demo.toml:13).
        pub struct sum__keep;
        /// Edge `sum-odd --> keep` (topologies/demo.toml:13).
        pub struct sum_odd__keep;
    }
    mod types {
        /// Task `lines` (topologies/demo.toml:8).
        pub mod lines {
            pub type Out = ::leatworks::source::Line;
        }
        /// Task `loop` (topologies/demo.toml:8).
        pub mod loop_ {
            pub type Task = crate::parts::Own;
            pub type In = <Task as ::leatworks::Task>::In;
            pub type Out = <Task as ::leatworks::Task>::Out;
        }
        /// Task `match` (topologies/demo.toml:8).
        pub mod match_ {
            pub type Task = crate::other::Match;
            pub type In = <Task as ::leatworks::Task>::In;
            pub type Out = <Task as ::leatworks::Task>::Out;
        }
        /// Task `sum` (topologies/demo.toml:8).
        pub mod sum {
            pub type Task = crate::parts::Sum;
            pub type In = <Task as ::leatworks::Fold>::In;
            pub type Out = <Task as ::leatworks::Fold>::Out;
        }
        /// Task `sum-odd` (topologies/demo.toml:10).
        pub mod sum_odd {
            pub type Task = crate::parts::Sum;
            pub type In = <Task as ::leatworks::Fold>::In;
            pub type Out = <Task as ::leatworks::Fold>::Out;
        }
        /// Task `c` (topologies/demo.toml:12).
        pub mod c {
            pub type Task = crate::parts::C;
            pub type In = <Task as ::leatworks::Task>::In;
            pub type Out = <Task as ::leatworks::Task>::Out;
        }
    }
    /// Edge `lines --> loop` (topologies/demo.toml:8).
    const _: () = {
        fn check() {
            ::leatworks::edge_fits!(
                "lines --> loop (topologies/demo.toml:8)", types::lines::Out,
                types::loop_::In, edges::lines__loop
            );
        }
    };
    /// Edge `loop --> match` (topologies/demo.toml:8).
    const _: () = {
        fn check() {
            ::leatworks::edge_fits!(
                "loop --> match (topologies/demo.toml:8)", types::loop_::Out,
                types::match_::In, edges::loop__match
            );
        }
    };
    /// Edge `loop --> sum` (topologies/demo.toml:8).
    const _: () = {
        fn check() {
            ::leatworks::edge_fits!(
                "loop --> sum (topologies/demo.toml:8)", types::loop_::Out,
                types::sum::In, edges::loop__sum
            );
        }
    };
    /// Edge `match -->|odd-number| sum-odd` (topologies/demo.toml:10).
    const _: () = {
        use ::leatworks::{RouteVariant, check};
        type Out = types::match_::Out;
        const LABELS: &[&str] = check::labels::<
            Out,
            edges::match__odd_number__sum_odd,
        >();
        const I: usize = check::label(
            LABELS,
            "odd-number",
            "match -->|odd-number| sum-odd",
            "match",
            "topologies/demo.toml:10",
        );
        type Payload = <Out as RouteVariant<I>>::Payload;
        fn check() {
            ::leatworks::edge_fits!(
                "match -->|odd-number| sum-odd (topologies/demo.toml:10)", Payload,
                types::sum_odd::In, edges::match__odd_number__sum_odd
            );
        }
    };
    /// Every variant that `match` gives has an edge or ends there.
    const _: () = ::leatworks::check::variants_covered(
        <types::match_::Out as ::leatworks::Route>::LABELS,
        &["even-number", "odd-number"],
        &["zero"],
        "match",
        "topologies/demo.toml:8",
    );
}
