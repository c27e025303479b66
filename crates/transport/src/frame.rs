//! Length-prefixed frames: four bytes, big-endian, then the content.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Room made for a frame before any of it has come; more as it comes.
const AT_ONCE_BYTES: usize = 64 << 10;

/// A frame that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than this place allows.
    #[error("a frame of {len} bytes where {max} are allowed")]
    TooLong {
        /// Its length.
        len: usize,
        /// What is allowed.
        max: usize,
    },
    /// The stream ended or broke.
    #[error("the stream broke: {0}")]
    Stream(#[from] std::io::Error),
}

/// Writes one frame.
///
/// # Errors
/// Content longer than `u32::MAX`, or a broken stream.
pub async fn write_frame<W: AsyncWrite + Unpin>(
    stream: &mut W,
    content: &[u8],
) -> Result<(), FrameError> {
    let len = u32::try_from(content.len())
        .map_err(|_| FrameError::TooLong { len: content.len(), max: u32::MAX as usize })?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(content).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one frame of at most `max` bytes. Nothing is allocated for a longer one, and for one that
/// is only announced no more than for a short one.
///
/// # Errors
/// A longer frame, or a stream that ended before the frame did.
pub async fn read_frame<R: AsyncRead + Unpin>(
    stream: &mut R,
    max: usize,
) -> Result<Vec<u8>, FrameError> {
    let mut len = [0; 4];
    stream.read_exact(&mut len).await?;
    let len = u32::from_be_bytes(len) as usize;
    if len > max {
        return Err(FrameError::TooLong { len, max });
    }
    let mut content = Vec::with_capacity(len.min(AT_ONCE_BYTES));
    let got = stream.take(len as u64).read_to_end(&mut content).await?;
    if got < len {
        return Err(FrameError::Stream(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_reads_back_and_a_long_one_is_refused() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, b"hello").await.expect("a vector takes all");
        assert_eq!(read_frame(&mut bytes.as_slice(), 5).await.expect("whole"), b"hello");
        assert!(matches!(
            read_frame(&mut bytes.as_slice(), 4).await,
            Err(FrameError::TooLong { len: 5, max: 4 })
        ));
        assert!(matches!(read_frame(&mut &bytes[..7], 5).await, Err(FrameError::Stream(_))));
    }
}
