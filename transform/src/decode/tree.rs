//! The declared paths as a tree, so that one walk of a payload finds every column.

use karat_schemas::pipelines::Column;

use super::hash;

pub(super) struct Tree {
    /// The root is node 0.
    nodes: Vec<Node>,
}

#[derive(Default)]
pub(super) struct Node {
    pub(super) name: String,
    /// Of the name.
    pub(super) hash: u128,
    /// The column that takes the value at this node.
    pub(super) column: Option<usize>,
    children: Vec<usize>,
}

impl Tree {
    pub(super) fn new(columns: &[Column]) -> Self {
        let mut tree = Self { nodes: vec![Node::default()] };
        for (index, column) in columns.iter().enumerate() {
            let path = column.path.as_deref().unwrap_or(&column.name);
            let leaf = path.split('.').fold(0, |node, name| tree.child_or_new(node, name));
            tree.nodes[leaf].column = Some(index);
        }
        tree
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The child of `node` with this name. Objects have few wanted fields: a scan beats a hash map.
    pub(super) fn child(&self, node: usize, name: &str) -> Option<usize> {
        self.nodes[node].children.iter().copied().find(|child| self.nodes[*child].name == name)
    }

    fn child_or_new(&mut self, node: usize, name: &str) -> usize {
        if let Some(child) = self.child(node, name) {
            return child;
        }
        let child = self.nodes.len();
        self.nodes.push(Node { name: name.to_owned(), hash: hash::name(name), ..Node::default() });
        self.nodes[node].children.push(child);
        child
    }
}
