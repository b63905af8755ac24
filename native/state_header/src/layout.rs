//! The shard layout of an epoch: which receipts go to which shard.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use near_primitives::block::BlockHeader;
use near_primitives::epoch_manager::EpochConfigStore;
use near_primitives::shard_layout::ShardLayout;
use near_primitives::types::{EpochId, ShardId};

use crate::error::{ErrorKind, HeaderError, Result};
use crate::rows::Chain;

/// Where a shard stands in the lists of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShardIndex {
    pub(crate) index: usize,
    pub(crate) shards: u64,
}

/// What is known of a chain's shard layouts beside its rows.
#[derive(Clone, Debug, Default)]
pub struct Layouts {
    chain_id: String,
    genesis: Option<ShardLayout>,
    known: RefCell<BTreeMap<EpochId, Rc<ShardLayout>>>,
}

impl Layouts {
    /// `genesis` is the JSON of the genesis file's shard layout, where it has one.
    pub fn new(chain_id: &str, genesis: Option<&str>) -> Result<Self> {
        let genesis = genesis.map(serde_json::from_str).transpose().map_err(|error| {
            HeaderError::new(ErrorKind::Unsupported, format!("the shard layout can't be read: {error}"), "genesis file")
        })?;
        Ok(Self { chain_id: chain_id.to_owned(), genesis, known: RefCell::default() })
    }

    /// The layout of a block's epoch: as the source says it, from the epoch's own row, from what nearcore has built in for the chain, or from the genesis.
    ///
    /// A wrong one can't go unseen: receipts grouped by it have the root that the chunk's hash was made of, or not.
    ///
    /// Source: nearcore chain/epoch-manager/src/lib.rs, `get_shard_layout`.
    pub(crate) fn of(&self, chain: &Chain<'_>, block: &BlockHeader) -> Result<Rc<ShardLayout>> {
        if let Some(known) = self.known.borrow().get(block.epoch_id()) {
            return Ok(Rc::clone(known));
        }
        let found = Rc::new(self.find(chain, block.epoch_id())?);
        self.known.borrow_mut().insert(*block.epoch_id(), Rc::clone(&found));
        Ok(found)
    }

    /// The place of a shard in the lists of a block, and the length of those lists.
    pub(crate) fn index(&self, chain: &Chain<'_>, block: &BlockHeader, shard_id: ShardId) -> Result<ShardIndex> {
        let layout = self.of(chain, block)?;
        let index = layout
            .get_shard_index(shard_id)
            .map_err(|_| HeaderError::integrity(format!("the epoch has no shard {shard_id}"), format!("block {}", block.hash())))?;
        Ok(ShardIndex { index, shards: layout.num_shards() })
    }

    fn find(&self, chain: &Chain<'_>, epoch_id: &EpochId) -> Result<ShardLayout> {
        if let Some(layout) = chain.said_layout(epoch_id)? {
            return Ok(layout);
        }
        let epoch_info = chain.epoch_info(epoch_id)?;
        if let Some(layout) = epoch_info.shard_layout() {
            return Ok(layout.clone());
        }
        let version = epoch_info.protocol_version();
        let built_in = EpochConfigStore::for_chain_id(&self.chain_id, None).and_then(|store| {
            let config = store.iter().take_while(|(since, _)| **since <= version).last();
            config.and_then(|(_, config)| config.static_shard_layout())
        });
        built_in.or_else(|| self.genesis.clone()).ok_or_else(|| {
            HeaderError::unsupported(
                format!("nothing tells the shard layout of epoch {}", epoch_id.0),
                format!("chain {}, protocol version {version}", self.chain_id),
            )
        })
    }
}
