//! Sends everything to the one connected subchannel.

use crate::{Pick, PickArgs, PickResult, Picker, SubchannelId};

pub(super) struct OnePicker(pub(super) SubchannelId);

impl Picker for OnePicker {
    fn pick(&self, _args: &PickArgs<'_>) -> PickResult {
        PickResult::Complete(Pick::new(self.0))
    }
}
