//! Chains made for tests, and real blocks.

mod built_in_layouts;
mod made_chain;
mod missing_chunks;
mod real_blocks;
