//! Collections agree with plain maps and vectors, whatever moves between the tiers in between, and however often the store is
//! saved, closed and opened again; on both indexes. `MODEL_SEEDS=1000` for longer.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hybridlog::{
    BucketIndex, Collection, DashIndex, Direction, Element, INSERTED_BESIDE_BYTES,
    INSERTED_TOGETHER_BYTES, Index, KeyRef, LatchMode, Layout, Meta, Namespace, NewCollection,
    Operation, Options, Order, Put, Stop, Store, TreeLayout, WalkFrom,
};

const NAMESPACE: Namespace = Namespace(1);
const KEY: &[u8] = b"collection";

const HASH: usize = 0;
const SORTED: usize = 1;
const LIST: usize = 2;
const SET: usize = 3;

static ALL_ORDERS: Layout = Layout {
    kind: 5,
    trees: &[
        tree(Order::Hash, true),
        tree(Order::Key, true),
        tree(Order::Position, true),
        tree(Order::Hash, false),
    ],
};

const fn tree(order: Order, has_values: bool) -> TreeLayout {
    TreeLayout { order, has_values }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// With its expiry.
type Value = (Vec<u8>, Option<u64>);
type Values = BTreeMap<Vec<u8>, Value>;

#[derive(Default)]
struct Model {
    maps: [Values; 4],
    list: Vec<Vec<u8>>,
    header: Vec<u8>,
}

impl Model {
    fn len(&self, tree: usize) -> u64 {
        match tree {
            LIST => self.list.len() as u64,
            _ => self.maps[tree].len() as u64,
        }
    }
}

fn open<I: Index>(directory: &Path) -> Arc<Store<I>> {
    let options = Options {
        segment_bytes: Some(1 << 20),
        ..Options::new(directory).memory_bytes(32 << 20)
    };
    Store::open(options).expect("it opens")
}

fn write<I: Index, T>(
    store: &Store<I>,
    mut body: impl FnMut(&mut Operation<'_, I>) -> Result<T, Stop>,
) -> T {
    let latched = [KeyRef {
        namespace: NAMESPACE,
        key: KEY,
        mode: LatchMode::Exclusive,
    }];
    store
        .blocking(&latched, 1, |op| body(op))
        .expect("a change")
}

fn read<I: Index, T>(
    store: &Store<I>,
    mut body: impl FnMut(Option<Collection<'_, I>>) -> Result<T, Stop>,
) -> T {
    let latched = [KeyRef {
        namespace: NAMESPACE,
        key: KEY,
        mode: LatchMode::Shared,
    }];
    let done = store.blocking(&latched, 1, |op| {
        let record = op.read(NAMESPACE, KEY)?;
        match record {
            Some(record) => body(Some(op.open_collection(&record)?)),
            None => body(None),
        }
    });
    done.expect("a read")
}

/// How long keys and values of a run may be.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    keys: u64,
    value_max: u64,
    key_pad_max: u64,
}

struct Run<I: Index> {
    store: Arc<Store<I>>,
    model: Model,
    random: Random,
    sizes: Sizes,
}

impl<I: Index> Run<I> {
    fn key(&mut self) -> Vec<u8> {
        let n = self.random.below(self.sizes.keys);
        if n == 0 {
            return Vec::new();
        }
        // The same number has the same length.
        let pad = n.wrapping_mul(0x9e37_79b9) % (self.sizes.key_pad_max + 1);
        let mut key = format!("{:05}", n * 7919 % 100_000).into_bytes();
        key.resize(key.len() + pad as usize, b'k');
        key
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.below(100) {
            // Beyond what a frame of the command log takes.
            0 if self.sizes.value_max == 3000 => 60_000 + self.random.below(30_000),
            _ => self.random.below(self.sizes.value_max + 1),
        };
        vec![self.random.next() as u8; len as usize]
    }

    fn step(&mut self) {
        let keyed = [HASH, SORTED, SET][self.random.below(3) as usize];
        match self.random.below(20) {
            0..=5 => self.put(keyed),
            6..=8 => self.remove(keyed),
            9..=10 => self.insert(),
            11 => self.insert_together(),
            12 => self.replace(),
            13 => self.remove_range(),
            14 => self.header(),
            15 => self.get(keyed),
            16 => self.at(),
            17 => self.rank(),
            _ => self.walk(),
        }
    }

    fn put(&mut self, tree: usize) {
        let (key, mut value) = (self.key(), self.value());
        if tree == SET {
            value.clear();
        }
        let expires_at_ms = (self.random.below(4) == 0 && tree != SET).then(|| self.random.next());
        let put = write(&self.store, |op| {
            op.put_element(
                NAMESPACE,
                KEY,
                &ALL_ORDERS,
                tree,
                &key,
                &value,
                expires_at_ms,
            )
        });
        let old = self.model.maps[tree].insert(key, (value, expires_at_ms));
        assert_eq!(put == Put::Added, old.is_none());
    }

    fn remove(&mut self, tree: usize) {
        let key = self.key();
        let removed = write(&self.store, |op| {
            op.remove_element(NAMESPACE, KEY, tree, &key)
        });
        assert_eq!(removed, self.model.maps[tree].remove(&key).is_some());
    }

    fn insert(&mut self) {
        let len = self.model.list.len() as u64;
        let at = match self.random.below(4) {
            0 => 0,
            1 => u64::MAX,
            _ => self.random.below(len + 1),
        };
        let value = self.value();
        let now = write(&self.store, |op| {
            op.insert_at(NAMESPACE, KEY, &ALL_ORDERS, LIST, at, &value)
        });
        self.model.list.insert(at.min(len) as usize, value);
        assert_eq!(now, len + 1);
    }

    fn insert_together(&mut self) {
        let len = self.model.list.len() as u64;
        let at = [0, len, self.random.below(len + 1)][self.random.below(3) as usize];
        let longest = self.random.below(30) + 1;
        let (mut values, mut bytes) = (Vec::new(), 0);
        let count = self.random.below(300) + 1;
        while (values.len() as u64) < count {
            let value = vec![self.random.next() as u8; self.random.below(longest) as usize];
            bytes += value.len() + INSERTED_BESIDE_BYTES;
            if bytes > INSERTED_TOGETHER_BYTES {
                break;
            }
            values.push(value);
        }
        let together: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let now = write(&self.store, |op| {
            op.insert_together(NAMESPACE, KEY, &ALL_ORDERS, LIST, at, &together)
        });
        let added = together.len() as u64;
        let at = at as usize;
        self.model.list.splice(at..at, values);
        assert_eq!(now, len + added);
    }

    fn replace(&mut self) {
        let at = self.random.below(self.model.list.len() as u64 + 2);
        let value = self.value();
        let replaced = write(&self.store, |op| {
            op.replace_at(NAMESPACE, KEY, LIST, at, &value)
        });
        let old = self.model.list.get_mut(at as usize);
        assert_eq!(replaced, old.is_some());
        if let Some(old) = old {
            *old = value;
        }
    }

    fn remove_range(&mut self) {
        let tree = [SORTED, LIST][self.random.below(2) as usize];
        let len = self.model.len(tree);
        let from = self.random.below(len + 2);
        let count = match self.random.below(6) {
            0 => self.random.below(len / 3 + 2),
            _ => self.random.below(10),
        };
        let mut keys = Vec::new();
        if tree != LIST {
            let walk_keys = |collection: Option<Collection<'_, I>>| {
                keys.clear();
                let Some(collection) = collection else {
                    return Ok(());
                };
                collection.walk(
                    tree,
                    WalkFrom::Position(from),
                    Direction::Forward,
                    count,
                    &mut |element| {
                        keys.push(element.key.into_owned());
                        ControlFlow::Continue(())
                    },
                )
            };
            read(&self.store, walk_keys);
        }
        let removed = write(&self.store, |op| {
            op.remove_range(NAMESPACE, KEY, tree, from, count)
        });
        let range = from.min(len) as usize..(from + count).min(len) as usize;
        assert_eq!(removed as usize, range.len());
        if tree == LIST {
            self.model.list.drain(range);
        } else {
            assert_eq!(keys.len(), range.len());
            for key in keys {
                self.model.maps[tree].remove(&key).expect("it was there");
            }
        }
    }

    fn header(&mut self) {
        let len = self.random.below(200);
        let header = vec![self.random.next() as u8; len as usize];
        write(&self.store, |op| {
            op.set_header(NAMESPACE, KEY, &ALL_ORDERS, &header)
        });
        self.model.header = header;
    }

    fn get(&mut self, tree: usize) {
        let key = self.key();
        let found = read(&self.store, |collection| {
            let Some(collection) = collection else {
                return Ok(None);
            };
            collection.want(tree, [&key[..]])?;
            let element = collection.get(tree, &key)?;
            Ok(element.map(|element| (element.value.into_owned(), element.expires_at_ms)))
        });
        assert_eq!(found.as_ref(), self.model.maps[tree].get(&key));
    }

    fn at(&mut self) {
        let at = self.random.below(self.model.list.len() as u64 + 2);
        let found = read(&self.store, |collection| {
            let Some(collection) = collection else {
                return Ok(None);
            };
            let element = collection.at(LIST, at)?;
            Ok(element.map(|element| element.value.into_owned()))
        });
        assert_eq!(found.as_ref(), self.model.list.get(at as usize));
    }

    fn rank(&mut self) {
        let key = self.key();
        let found = read(&self.store, |collection| {
            let Some(collection) = collection else {
                return Ok((0, false));
            };
            collection.rank(SORTED, &key)
        });
        let before = self.model.maps[SORTED].range(..key.clone()).count() as u64;
        let is_there = self.model.maps[SORTED].contains_key(&key);
        assert_eq!(found, (before, is_there));
    }

    fn walk(&mut self) {
        let keys: Vec<_> = self.model.maps[SORTED].keys().cloned().collect();
        let key = self.key();
        let at_most = self.random.below(2 * keys.len() as u64 + 2);
        let position = self.random.below(keys.len() as u64 + 2);
        let direction = [Direction::Forward, Direction::Backward][self.random.below(2) as usize];
        let less = keys.iter().filter(|other| **other < key).count();
        let not_greater = keys.iter().filter(|other| **other <= key).count();
        let forward = direction == Direction::Forward;
        let (from, range) = match (self.random.below(4), forward) {
            (0, true) => (WalkFrom::Start, 0..keys.len()),
            (0, false) => (WalkFrom::End, 0..keys.len()),
            (1, true) => (
                WalkFrom::Position(position),
                (position as usize).min(keys.len())..keys.len(),
            ),
            (1, false) if position as usize >= keys.len() => (WalkFrom::Position(position), 0..0),
            (1, false) => (WalkFrom::Position(position), 0..position as usize + 1),
            (_, true) => (WalkFrom::Key(&key), less..keys.len()),
            (_, false) => (WalkFrom::Key(&key), 0..not_greater),
        };
        let mut found = Vec::new();
        read(&self.store, |collection| {
            found.clear();
            let Some(collection) = collection else {
                return Ok(());
            };
            collection.walk(SORTED, from, direction, at_most, &mut |element| {
                found.push(element.key.into_owned());
                ControlFlow::Continue(())
            })
        });
        let mut expected: Vec<_> = keys[range].to_vec();
        if !forward {
            expected.reverse();
        }
        expected.truncate(at_most as usize);
        assert_eq!(found, expected);
    }

    /// All elements of a tree, in its order.
    fn elements(&self, tree: usize) -> Vec<(Vec<u8>, Value)> {
        let mut all = Vec::new();
        read(&self.store, |collection| {
            all.clear();
            let Some(collection) = collection else {
                return Ok(());
            };
            let (start, forward) = (WalkFrom::Start, Direction::Forward);
            collection.walk(tree, start, forward, u64::MAX, &mut |element| {
                let value = (element.value.into_owned(), element.expires_at_ms);
                all.push((element.key.into_owned(), value));
                ControlFlow::Continue(())
            })
        });
        all
    }

    fn compare(&self) {
        let exists = read(&self.store, |collection| {
            let Some(collection) = collection else {
                return Ok(false);
            };
            for tree in 0..4 {
                assert_eq!(collection.len(tree), self.model.len(tree));
            }
            assert_eq!(collection.header(), self.model.header);
            // The root and its pages, and nothing else.
            assert_eq!(self.store.stats().index_slots, 1 + collection.pages());
            Ok(true)
        });
        let list: Vec<_> = self
            .elements(LIST)
            .into_iter()
            .map(|(_, value)| value.0)
            .collect();
        assert!(list == self.model.list, "the list");
        let sorted = self.elements(SORTED);
        assert!(
            sorted.into_iter().eq(self.model.maps[SORTED].clone()),
            "the sorted map"
        );
        for tree in [HASH, SET] {
            let all = self.elements(tree);
            assert_eq!(all.len(), self.model.maps[tree].len());
            let all: BTreeMap<_, _> = all.into_iter().collect();
            assert!(all == self.model.maps[tree], "the map by hash");
            if exists {
                self.scan(tree);
            }
        }
    }

    /// Takes out all that is left, element by element, and then the key.
    fn empty(&mut self) {
        for tree in [HASH, SORTED, SET] {
            for key in std::mem::take(&mut self.model.maps[tree]).into_keys() {
                let removed = write(&self.store, |op| {
                    op.remove_element(NAMESPACE, KEY, tree, &key)
                });
                assert!(removed);
            }
        }
        let count = std::mem::take(&mut self.model.list).len() as u64;
        let removed = write(&self.store, |op| {
            op.remove_range(NAMESPACE, KEY, LIST, 0, count)
        });
        assert_eq!(removed, count);
        self.compare();
        let (pages, bytes) = read(&self.store, |collection| {
            Ok(collection.map_or((0, 0), |collection| {
                (collection.pages(), collection.bytes())
            }))
        });
        assert_eq!(pages, 0);
        assert!(bytes < 500, "{bytes} bytes of nothing");
        assert!(write(&self.store, |op| op.remove(NAMESPACE, KEY)));
        assert_eq!(self.store.stats().index_slots, 0, "slots are left");
    }

    fn scan(&self, tree: usize) {
        let (mut found, mut cursor) = (BTreeMap::new(), 0);
        loop {
            cursor = read(&self.store, |collection| {
                let Some(collection) = collection else {
                    return Ok(0);
                };
                let scanned = collection.scan(tree, cursor, 10)?;
                for element in scanned.elements {
                    let value = (element.value.into_owned(), element.expires_at_ms);
                    found.insert(element.key.into_owned(), value);
                }
                Ok(scanned.cursor)
            });
            if cursor == 0 {
                break;
            }
        }
        assert!(found == self.model.maps[tree], "scanned");
    }
}

fn run<I: Index>(seed: u64, steps: u64) {
    let mut random = Random(seed);
    let sizes = Sizes {
        keys: [5, 100, 2000][random.below(3) as usize],
        value_max: [4, 30, 300, 3000][random.below(4) as usize],
        key_pad_max: [0, 20, 600, 2500][random.below(4) as usize],
    };
    println!("seed {seed} on {}, {sizes:?}", I::NAME);
    let directory = tempfile::tempdir().expect("a directory");
    let mut run = Run {
        store: open::<I>(directory.path()),
        model: Model::default(),
        random,
        sizes,
    };
    for step in 0..steps {
        run.step();
        match run.random.below(60) {
            0 => run.store.seal_all().expect("segments can be written"),
            1 => run.store.force_cold().expect("segments can be written"),
            2 => {
                run.store.checkpoint().expect("a checkpoint can be made");
            }
            3 if step % 4 == 0 => {
                let Run {
                    store,
                    model,
                    random,
                    sizes,
                } = run;
                drop(store);
                run = Run {
                    store: open::<I>(directory.path()),
                    model,
                    random,
                    sizes,
                };
            }
            4 => run.compare(),
            _ => {}
        }
    }
    run.compare();
    run.empty();
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("MODEL_SEEDS").ok();
    match wanted.as_deref().and_then(|wanted| wanted.split_once("..")) {
        Some((from, to)) => from.parse().expect("a number")..to.parse().expect("a number"),
        None => 0..wanted.map_or(default, |wanted| wanted.parse().expect("a number")),
    }
}

#[test]
fn collections_agree_with_maps_and_vectors() {
    for seed in seeds(6) {
        run::<BucketIndex>(seed, 1500);
        run::<DashIndex>(seed, 1500);
    }
}

const ELEMENTS: u64 = 30_000;

fn element(n: u64) -> Vec<u8> {
    format!("element {n:06}").into_bytes()
}

fn large_set(store: &Store) {
    for from in (0..ELEMENTS).step_by(500) {
        write(store, |op| {
            (from..from + 500).try_for_each(|n| {
                op.put_element(NAMESPACE, KEY, &ALL_ORDERS, SET, &element(n), b"", None)
                    .map(drop)
            })
        });
    }
}

/// To remove a collection takes its root away and nothing else; what it had is freed in the background, and not forgotten over
/// a restart.
#[test]
fn a_collection_goes_at_once_and_its_pages_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    large_set(&store);
    let pages = read(&store, |collection| {
        Ok(collection.map_or(0, |collection| collection.pages()))
    });
    assert!(pages > 50, "{pages} pages");
    for cold in [false, true] {
        if cold {
            large_set(&store);
            store.force_cold().expect("it goes cold");
        }
        let reads_before = store.stats().cold_reads;
        assert!(write(&store, |op| op.remove(NAMESPACE, KEY)));
        // Those of the background may be among them if it has begun already.
        let reads = store.stats().cold_reads - reads_before;
        assert!(cold || reads == 0, "{reads} reads");
        assert!(!write(&store, |op| op.remove(NAMESPACE, KEY)));
        assert_eq!(store.len(NAMESPACE), 0);
        if !cold {
            nothing_is_left(&store);
        }
    }
    store.checkpoint().expect("a checkpoint");
    drop(store);
    let store = open::<BucketIndex>(directory.path());
    nothing_is_left(&store);
    // What is buried by the command log alone is known as well.
    large_set(&store);
    store.checkpoint().expect("a checkpoint");
    assert!(write(&store, |op| op.remove(NAMESPACE, KEY)));
    drop(store);
    nothing_is_left(&open::<BucketIndex>(directory.path()));
}

/// The collection and another key, both to be changed.
fn changing_with(other: &[u8]) -> [KeyRef<'_>; 2] {
    [KEY, other].map(|key| KeyRef {
        namespace: NAMESPACE,
        key,
        mode: LatchMode::Exclusive,
    })
}

/// What a blind write went in front of is not what is renamed.
#[test]
fn pages_of_a_shadow_go_when_the_key_in_front_of_it_is_renamed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    large_set(&store);
    store.force_cold().expect("it goes cold");
    let other = b"other";
    let latched = changing_with(other);
    let renamed = store.blocking(&latched, 0, |op| {
        op.set(NAMESPACE, KEY, b"a string", Meta::default())?;
        op.rename((NAMESPACE, KEY), (NAMESPACE, other))
    });
    assert!(renamed.expect("both are there"));
    assert!(
        store
            .blocking(&latched, 0, |op| op.remove(NAMESPACE, other))
            .expect("it is there")
    );
    nothing_is_left(&store);
}

fn nothing_is_left(store: &Store) {
    let (begin, limit) = (Instant::now(), Duration::from_secs(60));
    while store.stats().index_slots > 0 {
        assert!(begin.elapsed() < limit, "{:?}", store.stats());
        store.compact(limit);
    }
}

/// Random elements are built at once, and then changed like any others.
#[test]
fn what_is_built_at_once_is_as_if_put_one_by_one() {
    for seed in seeds(6) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut random = Random(seed);
        let sizes = Sizes {
            keys: 2000,
            value_max: [10, 3000][random.below(2) as usize],
            key_pad_max: [0, 600, 2500][random.below(3) as usize],
        };
        let count = [3, 30, 1000][random.below(3) as usize];
        println!("seed {seed}, {sizes:?}, {count} elements");
        let mut run = Run::<BucketIndex> {
            store: open(directory.path()),
            model: Model::default(),
            random,
            sizes,
        };
        for _ in 0..count {
            let (key, value) = (run.key(), run.value());
            run.model.maps[HASH].insert(key.clone(), (value.clone(), Some(5)));
            run.model.maps[SORTED].insert(key.clone(), (value.clone(), None));
            run.model.maps[SET].insert(key, (Vec::new(), None));
            run.model.list.push(value);
        }
        run.model.header = b"header".to_vec();
        write(&run.store, |op| {
            let maps = [HASH, SORTED, SET].into_iter();
            let keyed = maps.flat_map(|tree| run.model.maps[tree].iter().map(move |it| (tree, it)));
            let keyed = keyed.map(|(tree, (key, (value, expires_at_ms)))| {
                (tree, new_element(key, value, *expires_at_ms))
            });
            let list = run
                .model
                .list
                .iter()
                .map(|value| (LIST, new_element(b"", value, None)));
            let mut all = keyed.chain(list);
            let new = NewCollection {
                layout: &ALL_ORDERS,
                header: b"header",
                due_at_ms: None,
                expires_at_ms: None,
            };
            op.build_collection(NAMESPACE, KEY, new, &mut all)
        });
        run.compare();
        // As the command log has it.
        let Run {
            store,
            model,
            random,
            sizes,
        } = run;
        drop(store);
        let mut run = Run::<BucketIndex> {
            store: open(directory.path()),
            model,
            random,
            sizes,
        };
        run.compare();
        (0..200).for_each(|_| run.step());
        run.compare();
        run.empty();
    }
}

fn new_element<'e>(key: &'e [u8], value: &'e [u8], expires_at_ms: Option<u64>) -> Element<'e> {
    Element {
        key: key.into(),
        value: value.into(),
        expires_at_ms,
    }
}

#[test]
fn a_copy_has_pages_of_its_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    large_set(&store);
    store.force_cold().expect("it goes cold");
    let copy = b"copy";
    let both = changing_with(copy);
    let copied = store.blocking(&both, 1, |op| {
        op.copy_collection((NAMESPACE, KEY), (NAMESPACE, copy))
    });
    assert!(copied.expect("it can be copied"));
    assert!(write(&store, |op| op.remove_element(
        NAMESPACE,
        KEY,
        SET,
        &element(0)
    )));
    let removed = store.blocking(&both, 1, |op| {
        op.rename((NAMESPACE, copy), (NAMESPACE, KEY))
    });
    assert!(removed.expect("it can be renamed"));
    let count = read(&store, |collection| {
        let Some(collection) = collection else {
            return Ok(0);
        };
        let mut count = 0;
        let (start, forward) = (WalkFrom::Start, Direction::Forward);
        collection.walk(SET, start, forward, u64::MAX, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        assert!(collection.get(SET, &element(0))?.is_some());
        Ok(count)
    });
    assert_eq!(count, ELEMENTS);
}

/// A replay may find other elements at these positions.
#[test]
fn elements_by_hash_are_not_removed_by_position() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open::<BucketIndex>(directory.path());
    write(&store, |op| {
        op.put_element(NAMESPACE, KEY, &ALL_ORDERS, HASH, b"element", b"", None)
    });
    let latched = [KeyRef {
        namespace: NAMESPACE,
        key: KEY,
        mode: LatchMode::Exclusive,
    }];
    let refused = store.blocking(&latched, 1, |op| {
        op.remove_range(NAMESPACE, KEY, HASH, 0, 1)
    });
    let text = refused.expect_err("it is refused").to_string();
    assert!(text.contains("by hash"), "{text}");
    let len = read(&store, |collection| {
        Ok(collection.map_or(0, |collection| collection.len(HASH)))
    });
    assert_eq!(len, 1);
}
