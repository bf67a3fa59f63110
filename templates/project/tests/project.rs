//! The tasks do what they should, and the stubs in `src/bin` are those of the project.

use leatworks::{Context, Fold, Task, source::Line};
use {{crate_name}}::tasks::{Check, Checked, Order, Refusal, Sum, Total};

async fn check(text: &str) -> Checked {
    let line = Line { number: 1, text: text.to_owned(), ..Line::default() };
    Check { most_cents: 500 }.run(line, &Context::detached()).await.expect("a line never fails")
}

#[tokio::test]
async fn a_good_order_is_accepted() {
    assert_eq!(check("bread, 320").await, Checked::Accepted(Order { item: "bread".to_owned(), cents: 320 }));
}

#[tokio::test]
async fn a_bad_order_is_refused_with_the_reason() {
    for (text, expected) in [
        ("bread", "there is no comma"),
        ("bread,three", "`three` is no number of cents"),
        ("bread,501", "501 cents are more than 500"),
    ] {
        assert_eq!(check(text).await, Checked::Refused(Refusal { line: 1, reason: expected.to_owned() }));
    }
}

#[test]
fn orders_are_added_up() {
    let mut sum = Sum::default();
    for cents in [320, 180] {
        let order = Order { item: "bread".to_owned(), cents };
        Total.fold(&mut sum, order, &Context::detached()).expect("adding never fails");
    }
    assert_eq!(sum, Sum { orders: 2, cents: 500 });
}

#[test]
fn stubs_are_fresh() {
    leatworks_build::assert_stubs_are_fresh(env!("CARGO_MANIFEST_DIR"));
}
