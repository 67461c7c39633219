//! Buffers that go to and from a driver.
//!
//! Mapped once when the queue is made, or another driver's (DMA-BUF). Dropped, the queue stops,
//! and its buffers go back to the driver.

use crate::camera::source::Failure;
use crate::camera::v4l2::node::Node;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;
use v4l2r::bindings::timeval;
use v4l2r::ioctl::{
    BufferFlags, ExpbufFlags, IntoErrno, MemoryConsistency, PlaneMapping, QueryBuffer,
    UncheckedV4l2Buffer,
};
use v4l2r::memory::MemoryType;
use v4l2r::{QueueType, ioctl};

/// Buffers that are asked for: one that is being read, one that is being filled, and two for a
/// thread that comes late, 66 ms at 30 frames a second.
pub const BUFFERS: u32 = 4;

/// One queue of a device.
pub struct Queue<'a> {
    node: &'a Node,
    kind: QueueType,
    memory: MemoryType,
    /// Mappings by buffer and plane; empty for those of another driver.
    buffers: Vec<Vec<PlaneMapping>>,
    count: u32,
}

/// A buffer that the driver has given back.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// Which one.
    pub index: u32,
    /// Bytes that are used of each plane.
    pub used: [usize; 8],
    /// The driver says that its content is damaged.
    pub damaged: bool,
    /// Nothing comes after it.
    pub last: bool,
    /// When its content was captured, on the monotonic clock; `None` where the driver's clock is
    /// another one.
    pub time: Option<Duration>,
    /// As the driver has it: to be handed on.
    pub timestamp: timeval,
}

/// What is put into a buffer that another driver reads.
pub struct Content<'a> {
    /// Bytes that are used of each plane.
    pub used: &'a [usize],
    /// When it was captured.
    pub timestamp: timeval,
    /// Another driver's memory: a descriptor and a length for each plane.
    pub memory: Option<&'a [(RawFd, usize)]>,
}

impl<'a> Queue<'a> {
    /// Asks for `count` buffers and maps them.
    pub fn map(node: &'a Node, kind: QueueType, count: u32) -> Result<Queue<'a>, Failure> {
        let mut queue = Queue::request(node, kind, MemoryType::Mmap, count)?;
        for index in 0..queue.count as usize {
            let buffer: QueryBuffer = ioctl::querybuf(&node.file, kind, index)
                .map_err(|error| node.failure("its buffers cannot be asked for", error))?;
            let planes = buffer.planes.iter().map(|plane| {
                ioctl::mmap(&node.file, plane.mem_offset, plane.length)
                    .map_err(|error| node.failure("its buffers cannot be mapped", error))
            });
            let planes = planes.collect::<Result<_, _>>()?;
            queue.buffers.push(planes);
        }
        Ok(queue)
    }

    /// Asks for `count` buffers whose memory is another driver's.
    pub fn import(node: &'a Node, kind: QueueType, count: u32) -> Result<Queue<'a>, Failure> {
        Queue::request(node, kind, MemoryType::DmaBuf, count)
    }

    fn request(
        node: &'a Node,
        kind: QueueType,
        memory: MemoryType,
        count: u32,
    ) -> Result<Queue<'a>, Failure> {
        let count: usize =
            ioctl::reqbufs(&node.file, kind, memory, count, MemoryConsistency::empty())
                .map_err(|error| node.failure("it gives no buffers", error))?;
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let queue = Queue { node, kind, memory, buffers: vec![], count };
        match count {
            0 => Err(Failure::from(format!("{} gives no buffers", node.path.display()))),
            _ => Ok(queue),
        }
    }

    /// Number of buffers.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The content of a plane of a buffer.
    pub fn plane(&self, index: u32, plane: usize) -> &[u8] {
        self.buffers.get(index as usize).and_then(|b| b.get(plane)).map_or(&[], |p| &p[..])
    }

    /// The planes of a buffer, to be written.
    pub fn planes_mut(&mut self, index: u32) -> &mut [PlaneMapping] {
        self.buffers.get_mut(index as usize).map_or(&mut [], |planes| &mut planes[..])
    }

    /// The planes of each buffer as DMA-BUF descriptors with their lengths.
    pub fn export(&self) -> Result<Vec<Vec<(OwnedFd, usize)>>, Failure> {
        let export = |index: usize, plane: usize, len: usize| {
            let flags = ExpbufFlags::CLOEXEC | ExpbufFlags::RDWR;
            ioctl::expbuf(&self.node.file, self.kind, index, plane, flags)
                .map(|fd: OwnedFd| (fd, len))
                .map_err(|error| self.node.failure("its buffers cannot be shared", error))
        };
        let planes = |(index, planes): (usize, &Vec<PlaneMapping>)| {
            planes.iter().enumerate().map(|(n, plane)| export(index, n, plane.size())).collect()
        };
        self.buffers.iter().enumerate().map(planes).collect()
    }

    /// Hands an empty buffer to the driver.
    pub fn give(&self, index: u32) -> Result<(), Failure> {
        self.give_raw(index, None).map_err(|e| self.node.failure("a buffer is not taken back", e))
    }

    /// Hands every buffer to the driver.
    pub fn give_all(&self) -> Result<(), Failure> {
        (0..self.count).try_for_each(|index| self.give(index))
    }

    /// Hands a full buffer to the driver.
    pub fn put(&self, index: u32, content: &Content<'_>) -> Result<(), Errno> {
        self.give_raw(index, Some(content))
            .map_err(|error| Errno::from_raw_os_error(error.into_errno()))
    }

    fn give_raw(&self, index: u32, content: Option<&Content<'_>>) -> Result<(), impl IntoErrno> {
        let mut buffer = UncheckedV4l2Buffer::new_for_querybuf(self.kind, Some(index));
        let (raw, planes) = (&mut buffer.0, &mut buffer.1);
        raw.memory = self.memory as u32;
        if let Some(planes) = planes {
            raw.length = content.map_or_else(
                || self.buffers.get(index as usize).map_or(1, Vec::len),
                |content| content.used.len(),
            ) as u32;
            if let Some(content) = content {
                for (n, used) in content.used.iter().enumerate() {
                    planes[n].bytesused = *used as u32;
                    if let Some(memory) = content.memory {
                        planes[n].m.fd = memory[n].0;
                        planes[n].length = memory[n].1 as u32;
                    }
                }
            }
        } else if let Some(content) = content {
            raw.bytesused = content.used[0] as u32;
            if let Some(memory) = content.memory {
                raw.m.fd = memory[0].0;
                raw.length = memory[0].1 as u32;
            }
        }
        if let Some(content) = content {
            raw.timestamp = content.timestamp;
        }
        ioctl::qbuf::<_, ()>(&self.node.file, buffer)
    }

    /// Takes a buffer back, if the driver is done with one.
    pub fn take(&self) -> Result<Option<Filled>, Failure> {
        let buffer: UncheckedV4l2Buffer = match ioctl::dqbuf(&self.node.file, self.kind) {
            Ok(buffer) => buffer,
            Err(error) => match Errno::from_raw_os_error(error.into_errno()) {
                Errno::AGAIN | Errno::INTR => return Ok(None),
                errno => return Err(self.failed(errno)),
            },
        };
        let (raw, planes) = (buffer.0, buffer.1);
        let mut used = [0; 8];
        match planes {
            Some(planes) => {
                for (used, plane) in used.iter_mut().zip(&planes[..]).take(raw.length as usize) {
                    *used = plane.bytesused as usize;
                }
            }
            None => used[0] = raw.bytesused as usize,
        }
        let flags = BufferFlags::from_bits_truncate(raw.flags);
        // Copied ones are on the clock of whoever gave them; a zero is nobody's.
        let own = BufferFlags::TIMESTAMP_MONOTONIC | BufferFlags::TIMESTAMP_COPY;
        let time = Duration::from_secs(u64::try_from(raw.timestamp.tv_sec).unwrap_or(0))
            + Duration::from_micros(u64::try_from(raw.timestamp.tv_usec).unwrap_or(0));
        Ok(Some(Filled {
            index: raw.index,
            used,
            damaged: flags.contains(BufferFlags::ERROR),
            last: flags.contains(BufferFlags::LAST),
            time: Some(time).filter(|time| flags.intersects(own) && !time.is_zero()),
            timestamp: raw.timestamp,
        }))
    }

    fn failed(&self, errno: Errno) -> Failure {
        match errno {
            Errno::IO => Failure::from(format!(
                "{}: the camera's data cannot be read (I/O error): cable, USB port or power supply",
                self.node.path.display()
            )),
            errno => self.node.failed("no picture comes", errno),
        }
    }

    /// Starts the flow.
    pub fn start(&self) -> Result<(), Failure> {
        ioctl::streamon(&self.node.file, self.kind)
            .map_err(|error| self.node.failure("it does not start", error))
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // Where the device is gone, so are its buffers.
        let _ = ioctl::streamoff(&self.node.file, self.kind);
        self.buffers.clear();
        let none = MemoryConsistency::empty();
        let _: Result<usize, _> = ioctl::reqbufs(&self.node.file, self.kind, self.memory, 0, none);
    }
}

/// A descriptor's number, for as long as it is borrowed.
pub fn raw(planes: &[(OwnedFd, usize)]) -> Vec<(RawFd, usize)> {
    planes.iter().map(|(fd, len)| (fd.as_raw_fd(), *len)).collect()
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};
    use v4l2r::bindings::*;

    /// The sizes are part of the system calls' numbers (ioctl_list(2)): VIDIOC_QBUF is 0xc058560f on
    /// 64-bit machines and 0xc044560f on 32-bit ones, so its structure has 0x58 or 0x44 bytes.
    #[test]
    fn structures_are_what_the_kernel_expects() {
        let wide = cfg!(target_pointer_width = "64");
        let size = |name: &str, is: usize, on_64: usize, on_32: usize| {
            assert_eq!(is, if wide { on_64 } else { on_32 }, "{name}");
        };
        size("v4l2_buffer", size_of::<v4l2_buffer>(), 0x58, 0x44);
        size("v4l2_format", size_of::<v4l2_format>(), 0xd0, 0xcc);
        size("v4l2_ext_controls", size_of::<v4l2_ext_controls>(), 0x20, 0x18);
        size("v4l2_plane", size_of::<v4l2_plane>(), 64, 60);
        // Without pointers in them, the same everywhere.
        size("v4l2_capability", size_of::<v4l2_capability>(), 0x68, 0x68);
        size("v4l2_fmtdesc", size_of::<v4l2_fmtdesc>(), 0x40, 0x40);
        size("v4l2_requestbuffers", size_of::<v4l2_requestbuffers>(), 0x14, 0x14);
        size("v4l2_exportbuffer", size_of::<v4l2_exportbuffer>(), 0x40, 0x40);
        size("v4l2_streamparm", size_of::<v4l2_streamparm>(), 0xcc, 0xcc);
        size("v4l2_control", size_of::<v4l2_control>(), 8, 8);
        size("v4l2_queryctrl", size_of::<v4l2_queryctrl>(), 0x44, 0x44);
        size("v4l2_encoder_cmd", size_of::<v4l2_encoder_cmd>(), 0x28, 0x28);
        size("v4l2_selection", size_of::<v4l2_selection>(), 0x40, 0x40);
        size("v4l2_frmsizeenum", size_of::<v4l2_frmsizeenum>(), 0x2c, 0x2c);
        size("v4l2_frmivalenum", size_of::<v4l2_frmivalenum>(), 0x34, 0x34);
        // What is read of a buffer.
        size("bytesused", offset_of!(v4l2_buffer, bytesused), 8, 8);
        size("timestamp", offset_of!(v4l2_buffer, timestamp), 24, 20);
        size("m", offset_of!(v4l2_buffer, m), 64, 52);
        size("length", offset_of!(v4l2_buffer, length), 72, 56);
    }
}
