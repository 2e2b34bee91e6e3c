//! Whatever a root or a page says, nothing panics, and everything ends: with a result or with an error.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Direction, Layout, Order, TreeLayout, WalkFrom};
use crate::address::SlotKind;
use crate::index::sealed::Slots;
use crate::operation::{Meta, Operation};
use crate::random::Random;
use crate::record::{Draft, flag};
use crate::write::Over;
use crate::{BucketIndex, KeyRef, LatchMode, Namespace, Options, Stop, Store};

const NAMESPACE: Namespace = Namespace(0);
const KEY: &[u8] = b"key";
const KIND: u8 = 1;

static LAYOUT: Layout = Layout {
    kind: KIND,
    trees: &[
        TreeLayout {
            order: Order::Hash,
            has_values: true,
        },
        TreeLayout {
            order: Order::Key,
            has_values: false,
        },
        TreeLayout {
            order: Order::Position,
            has_values: true,
        },
    ],
};

fn on<T>(
    store: &Store,
    mut body: impl FnMut(&mut Operation<'_, BucketIndex>) -> Result<T, Stop>,
) -> Result<T, Stop> {
    let latched = [KeyRef {
        namespace: NAMESPACE,
        key: KEY,
        mode: LatchMode::Exclusive,
    }];
    store.blocking(&latched, 1, |op| body(op))
}

/// How much damage was noticed.
static NOTICED: AtomicU64 = AtomicU64::new(0);

/// Errors must be those that the tree has found itself, or that there are too many bytes.
fn checked<T>(done: Result<T, Stop>) {
    if let Err(stop) = done {
        NOTICED.fetch_add(1, Ordering::Relaxed);
        let text = stop.to_string();
        let is_told = text.contains("damaged") || matches!(stop, Stop::TooLarge { .. });
        assert!(is_told, "{text}");
    }
}

fn element(n: u64) -> Vec<u8> {
    let long = if n.is_multiple_of(17) { 3000 } else { 0 };
    let mut key = format!("element {}", n % 97).into_bytes();
    key.resize(key.len() + long, b'x');
    key
}

fn put_some(store: &Store, random: &mut Random) -> Result<(), Stop> {
    for n in 0..60 {
        let value = vec![n as u8; random.below(if n == 7 { 9000 } else { 60 }) as usize];
        on(store, |op| {
            op.put_element(NAMESPACE, KEY, &LAYOUT, 0, &element(n), &value, None)
        })?;
        on(store, |op| {
            op.put_element(NAMESPACE, KEY, &LAYOUT, 1, &element(n), &[], None)
        })?;
        on(store, |op| {
            op.insert_at(NAMESPACE, KEY, &LAYOUT, 2, n / 2, &value)
        })?;
    }
    Ok(())
}

/// Changes some bytes of the root or of a page, leaving the record whole.
fn damage(store: &Store, random: &mut Random) -> Result<(), Stop> {
    let (at_root, steps) = (random.below(2) == 0, 1 + random.below(3));
    let mut change = |bytes: &mut Vec<u8>| {
        for _ in 0..steps {
            let at = random.below(bytes.len().clamp(1, 400) as u64) as usize;
            match random.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), random.next() as u8),
                _ if at < bytes.len() => {
                    bytes[at] = [0, 1, 0x7f, 0xff, random.next() as u8][random.below(5) as usize];
                }
                _ => {}
            }
        }
    };
    on(store, |op| {
        let hash = op.shared.hash(NAMESPACE, KEY);
        let Some(found) = op.find(hash, NAMESPACE, KEY)? else {
            return Ok(());
        };
        if at_root {
            let mut value = found.record.value().to_vec();
            change(&mut value);
            let meta = Meta {
                kind: KIND,
                expires_at_ms: None,
            };
            let slot = op.append(&Draft {
                namespace: NAMESPACE,
                key: KEY,
                value: &value,
                meta,
                flags: flag::TREE,
                slack_bytes: 0,
            })?;
            op.publish(hash, NAMESPACE, KEY, slot, meta, Over::SamePages(found));
            return Ok(());
        }
        let Some(pages) = super::TreePages::of(&found.record) else {
            return Ok(());
        };
        for number in 0..pages.below {
            let Some(page) = op.page(pages.object, number)? else {
                continue;
            };
            let mut value = page.record.value().to_vec();
            change(&mut value);
            let slot = op.append_page(pages.object, number, &value, 0)?;
            op.publish_page(pages.object, number, Some(page), slot);
        }
        Ok(())
    })
}

fn read_all(store: &Store, random: &mut Random) {
    for tree in 0..3 {
        let (n, direction) = (
            random.next() % 97,
            [Direction::Forward, Direction::Backward],
        );
        let cursor = [0, random.next()][random.below(2) as usize];
        let done = on(store, |op| {
            let Some(record) = op.read(NAMESPACE, KEY)? else {
                return Ok(());
            };
            let collection = op.open_collection(&record)?;
            if tree >= collection.trees() {
                return Ok(());
            }
            let order = collection.root.trees[tree].layout.order;
            checked(collection.at(tree, n));
            checked(collection.walk(
                tree,
                WalkFrom::Position(n),
                direction[n as usize % 2],
                50,
                &mut |_| ControlFlow::Continue(()),
            ));
            if order != Order::Position {
                checked(collection.get(tree, &element(n)));
                checked(collection.rank(tree, &element(n)));
            }
            if order == Order::Hash {
                checked(collection.scan(tree, cursor, 20));
            }
            Ok(())
        });
        checked(done);
    }
}

fn change_all(store: &Store, random: &mut Random) {
    let n = random.next() % 97;
    let orders = on(store, |op| {
        let Some(record) = op.read(NAMESPACE, KEY)? else {
            return Ok(Vec::new());
        };
        let collection = op.open_collection(&record)?;
        let trees = collection.root.trees.iter();
        Ok(trees.map(|tree| tree.layout.order).collect())
    });
    let Ok(orders) = orders else { return };
    for (tree, order) in orders.into_iter().enumerate() {
        if order == Order::Position {
            checked(on(store, |op| {
                op.insert_at(NAMESPACE, KEY, &LAYOUT, tree, n, b"value")
            }));
            checked(on(store, |op| {
                op.replace_at(NAMESPACE, KEY, tree, n / 2, b"other")
            }));
        } else {
            checked(on(store, |op| {
                op.put_element(NAMESPACE, KEY, &LAYOUT, tree, &element(n), b"value", None)
            }));
            checked(on(store, |op| {
                op.remove_element(NAMESPACE, KEY, tree, &element(n / 2))
            }));
        }
        if order != Order::Hash {
            checked(on(store, |op| op.remove_range(NAMESPACE, KEY, tree, n, 5)));
            checked(on(store, |op| {
                op.remove_range(NAMESPACE, KEY, tree, n / 3, 40)
            }));
        }
    }
}

#[test]
fn whatever_a_root_or_a_page_says_everything_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new(directory.path()).memory_bytes(64 << 20);
    let store = Store::<BucketIndex>::open(options).expect("it opens");
    let seeds = seeds();
    for seed in seeds.clone() {
        println!("seed {seed}");
        let mut random = Random::from_seed(seed);
        put_some(&store, &mut random).expect("nothing is damaged yet");
        damage(&store, &mut random).expect("it can be written");
        for _ in 0..5 {
            read_all(&store, &mut random);
            change_all(&store, &mut random);
        }
        on(&store, |op| op.remove(NAMESPACE, KEY)).expect("a root can always be removed");
        let hash = store.shared.hash(NAMESPACE, KEY);
        assert!(
            store
                .shared
                .index
                .candidates(hash, SlotKind::Root)
                .is_empty()
        );
    }
    let noticed = NOTICED.load(Ordering::Relaxed);
    assert!(noticed > seeds.end, "{noticed} times");
}

/// `HOSTILE_SEEDS=10000` for longer.
fn seeds() -> std::ops::Range<u64> {
    let seeds = std::env::var("HOSTILE_SEEDS").ok();
    0..seeds.map_or(200, |seeds| seeds.parse().expect("a number"))
}
