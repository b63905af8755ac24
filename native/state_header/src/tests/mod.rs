//! Chains made for tests, and real blocks.

mod made_chain;
mod missing_chunks;
mod real_blocks;
