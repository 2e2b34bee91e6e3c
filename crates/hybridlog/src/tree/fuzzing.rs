//! Roots and nodes of any content, for fuzzing.

use super::grow::root_max_bytes;
use super::inner::{Inner, Sought, inner_node};
use super::leaf::{Entries, Outside, Trouble, find_index, find_key};
use super::node::{Growth, NodeDraft};
use super::root::{Root, layout_of};
use super::{Order, PAGE_BYTES, TreeLayout};
use crate::Stop;

/// The longest page of a node, as it is read.
const NODE_MAX_BYTES: usize = 64 * 1024;

/// Reads `bytes` as the root of a collection, and as each kind of node.
///
/// # Panics
///
/// If something else is found than damage, or what is found does not agree with itself.
pub(crate) fn check_tree(bytes: &[u8]) {
    check_root(bytes);
    let Some((&kind, node)) = bytes.split_first() else {
        return;
    };
    let node = &node[..node.len().min(NODE_MAX_BYTES)];
    if let Ok(layout) = layout_of(kind & 0x83) {
        let level = node.first().copied().unwrap_or_default();
        check_node(node, layout, level);
        // As if its parent expected a leaf, and an inner node.
        check_node(node, layout, 0);
        check_node(node, layout, 1);
    }
}

fn check_root(value: &[u8]) {
    let Ok(root) = Root::of(value) else { return };
    let mut draft = root.draft();
    for tree in &draft.trees {
        check_node(&tree.top, tree.layout, tree.level);
    }
    // What is not looked at: the bits of flags that mean nothing.
    let encoded = draft.encode();
    assert_eq!(encoded.len(), value.len());
    assert!(Root::of(&encoded).is_ok_and(|again| again.draft().encode() == encoded));
    draft.free.truncate(1);
    assert_eq!(draft.encode().len(), draft.value_bytes());
    assert!(root_max_bytes(value) > 0);
}

fn check_node(node: &[u8], layout: TreeLayout, level: u8) {
    match level {
        0 => check_leaf(node, layout),
        level => check_inner(node, layout, level),
    }
    let Ok(draft) = NodeDraft::of(node, layout, level) else {
        return;
    };
    let elements = draft.elements();
    let growth = [Growth::AtStart, Growth::Within, Growth::AtEnd][node.len() % 3];
    let hash = |entry: &super::leaf::Entry<'_>| entry.key.iter().map(|&byte| u64::from(byte)).sum();
    let Ok(parts) = draft.clone().split(layout, growth, &hash) else {
        return;
    };
    let of_parts = parts.iter().map(|part| part.node.elements());
    assert_eq!(of_parts.fold(0, u64::saturating_add), elements);
    let is_one = parts.len() == 1;
    for part in parts {
        let encoded = part.node.encode(layout.order);
        assert!(is_one || encoded.len() <= PAGE_BYTES.max(node.len()));
        assert!(NodeDraft::of(&encoded, layout, level).is_ok());
    }
}

fn check_leaf(node: &[u8], layout: TreeLayout) {
    let Ok(mut entries) = Entries::of(node, layout) else {
        return;
    };
    let mut keys = vec![Vec::new(), vec![0x7f; 5]];
    while let Ok(Some(entry)) = entries.read() {
        assert!(entry.at < entry.end && entry.end <= node.len());
        if keys.len() < 8 {
            keys.push(entry.key.to_vec());
        }
    }
    for index in [0, 1, 70, u64::MAX] {
        if let Ok(spot) = find_index(node, layout, index) {
            assert!(spot.at <= node.len() && spot.index <= index);
        }
    }
    if layout.order == Order::Position {
        return;
    }
    let compare = |_: &Outside, _: &[u8]| Err(Stop::Cold);
    for key in keys {
        match find_key(node, layout, &key, &compare) {
            Ok(spot) => assert!(spot.at <= node.len()),
            Err(Trouble::Damaged(why)) => assert!(!why.is_empty()),
            Err(Trouble::Stop(stop)) => assert!(matches!(stop, Stop::Cold)),
        }
    }
}

fn check_inner(node: &[u8], layout: TreeLayout, level: u8) {
    let Ok(inner) = Inner::of(node, layout.order, level) else {
        return;
    };
    let last = inner.count() - 1;
    let before = inner.elements_before(last);
    let all = [
        Sought::Position(0),
        Sought::Position(before),
        Sought::Position(u64::MAX),
    ];
    let by_bound = match layout.order {
        Order::Hash => [
            Sought::Hash(0),
            Sought::Hash(u64::MAX / 3),
            Sought::Hash(u64::MAX),
        ],
        _ => [
            Sought::Key(b""),
            Sought::Key(b"key"),
            Sought::Key(&[0xff; 40]),
        ],
    };
    let by_bound = by_bound
        .into_iter()
        .filter(|_| layout.order != Order::Position);
    for sought in all.into_iter().chain(by_bound) {
        if let Ok((child, _)) = inner.find(sought) {
            assert!(child <= last);
        }
    }
    if let Ok(children) = inner.children() {
        let again = inner_node(layout.order, level, &children);
        let again = Inner::of(&again, layout.order, level).and_then(|inner| inner.children());
        // Separators that overlap take more room than there is for their ends.
        let separators: usize = children.iter().map(|child| child.bound.len()).sum();
        assert!(again.is_ok_and(|again| again == children) || separators > usize::from(u16::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::tree::leaf::put_entry;

    /// Some of what the fuzzer would try, from a seed.
    #[test]
    fn whatever_a_node_says_it_is_read_or_damaged() {
        for seed in 0..3000 {
            let mut random = Random::from_seed(seed);
            let kind = [0, 0x80, 1, 0x81, 2, 0x82][random.below(6) as usize];
            let layout = layout_of(kind).expect("an order");
            let mut node = vec![0, random.below(40) as u8, 0];
            for n in 0..random.below(40) {
                let key = vec![n as u8; random.below(30) as usize];
                put_entry(&mut node, layout, &key, &key, (n % 5 == 0).then_some(n));
            }
            for _ in 0..random.below(6) {
                let at = random.below(node.len() as u64) as usize;
                node[at] = random.next() as u8;
            }
            println!("seed {seed}");
            check_tree(&[&[kind], &node[..]].concat());
            let root = crate::tree::root::RootDraft::new(&[layout, layout], b"header");
            let mut value = root.encode();
            for _ in 0..random.below(4) {
                let at = random.below(value.len() as u64) as usize;
                value[at] = random.next() as u8;
            }
            check_tree(&value);
        }
    }
}
