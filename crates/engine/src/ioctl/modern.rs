//! The requests of the modern protocol that the engine has.
//!
//! Kernel counterpart: `ioctl_userfaultfd(2)`.

use userfault_abi::errno::Errno;
use userfault_abi::structs;
use userfault_abi::{CopyModes, Features, PoisonModes, RegisterModes, WriteprotectModes, ZeropageModes, request};

use crate::addr::PageRange;
use crate::context::{ContextId, Rules};
use crate::fill::Fill;
use crate::host::Embedder;
use crate::ioctl::{Call, Reply, refuse_handshake};
use crate::space::AddressSpace;

const fn invalid() -> Errno {
    Errno::EINVAL
}

impl<E: Embedder> AddressSpace<E> {
    pub(super) fn parse_modern(
        &self,
        context: ContextId,
        rules: Rules,
        running: bool,
        request: u32,
        input: &[u8],
    ) -> Result<Call, Reply> {
        if request == request::API {
            let argument = structs::Api::decode(input).ok_or_else(|| Reply::refused(Errno::EFAULT))?;
            return self
                .begin_handshake(context, argument.api, Features::from_bits(argument.features))
                .map(Call::Api)
                .map_err(|error| refuse_handshake(error, false));
        }
        if !running {
            return Err(Reply::refused(Errno::EINVAL));
        }
        self.parse_running(rules, request, input).map_err(Reply::refused)
    }

    fn parse_running(&self, rules: Rules, request: u32, input: &[u8]) -> Result<Call, Errno> {
        match request {
            request::REGISTER => {
                let argument = structs::Register::decode(input).ok_or(Errno::EFAULT)?;
                let modes = RegisterModes::from_bits(argument.mode);
                if modes.is_empty() || !modes.unknown().is_empty() {
                    return Err(invalid());
                }
                Ok(Call::Register { range: self.modern_range(rules, argument.range)?, modes })
            }
            request::UNREGISTER => {
                let argument = structs::Range::decode(input).ok_or(Errno::EFAULT)?;
                Ok(Call::Unregister { range: self.modern_range(rules, argument)? })
            }
            request::WAKE => {
                let argument = structs::Range::decode(input).ok_or(Errno::EFAULT)?;
                Ok(Call::Wake { range: self.modern_range(rules, argument)? })
            }
            request::WRITEPROTECT => {
                let argument = structs::Writeprotect::decode(input).ok_or(Errno::EFAULT)?;
                let range = self.modern_range(rules, argument.range)?;
                let modes = WriteprotectModes::from_bits(argument.mode);
                if !modes.unknown().is_empty() || modes == WriteprotectModes::ALL {
                    return Err(invalid());
                }
                Ok(Call::Writeprotect { range, modes })
            }
            _ => self.parse_fill(rules, request, input),
        }
    }

    fn parse_fill(&self, rules: Rules, request: u32, input: &[u8]) -> Result<Call, Errno> {
        let (range, fill, source, unknown) = match request {
            request::COPY => {
                let argument = structs::Copy::decode(input).ok_or(Errno::EFAULT)?;
                let target = structs::Range { start: argument.dst, len: argument.len };
                let range = self.modern_range(rules, target)?;
                let end = argument.src.checked_add(argument.len);
                if end.is_none_or(|end| end > self.limits.size) {
                    return Err(invalid());
                }
                let modes = CopyModes::from_bits(argument.mode);
                (range, Fill::Copy(modes), argument.src, !modes.unknown().is_empty())
            }
            request::ZEROPAGE => {
                let argument = structs::Zeropage::decode(input).ok_or(Errno::EFAULT)?;
                let modes = ZeropageModes::from_bits(argument.mode);
                let range = self.modern_range(rules, argument.range)?;
                (range, Fill::Zeropage(modes), 0, !modes.unknown().is_empty())
            }
            request::POISON => {
                let argument = structs::Poison::decode(input).ok_or(Errno::EFAULT)?;
                let modes = PoisonModes::from_bits(argument.mode);
                let range = self.modern_range(rules, argument.range)?;
                (range, Fill::Poison(modes), 0, !modes.unknown().is_empty())
            }
            _ => return Err(invalid()),
        };
        if unknown { Err(invalid()) } else { Ok(Call::Fill { range, fill, source }) }
    }

    fn modern_range(&self, rules: Rules, range: structs::Range) -> Result<PageRange, Errno> {
        self.parse_range(rules, range.start, range.len).map_err(|_| invalid())
    }
}
