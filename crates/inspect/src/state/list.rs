//! Where a person is in a table: which row, and which is the first on the screen.

/// A cursor in a list whose rows come, go and move.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// The row the cursor is on.
    pub selected: usize,
    /// The first row on the screen.
    pub offset: usize,
    /// Whether the cursor stays with what it is on as that moves (a table), or at the end (events).
    pub follow: bool,
}

/// A step of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A row up (-1) or down (1), or several.
    Rows(isize),
    /// A screen up or down.
    Pages(isize),
    /// To the first row.
    First,
    /// To the last row.
    Last,
}

impl List {
    /// Moves the cursor in a list of `len` rows of which `page` are seen.
    pub fn step(&mut self, step: Step, len: usize, page: usize) {
        let last = len.saturating_sub(1);
        self.selected = match step {
            Step::Rows(by) => self.selected.saturating_add_signed(by),
            Step::Pages(by) => {
                self.selected.saturating_add_signed(by.saturating_mul(page.max(2) as isize - 1))
            }
            Step::First => 0,
            Step::Last => last,
        };
        self.settle(len, page);
    }

    /// Keeps the cursor in the list and on the screen.
    pub fn settle(&mut self, len: usize, page: usize) {
        let page = page.max(1);
        self.selected = self.selected.min(len.saturating_sub(1));
        self.offset = self.offset.min(len.saturating_sub(page));
        if self.selected < self.offset {
            self.offset = self.selected;
        } else if self.selected >= self.offset + page {
            self.offset = self.selected + 1 - page;
        }
    }

    /// Moves a text of `len` lines instead of a cursor in it.
    pub fn scroll(&mut self, step: Step, len: usize, page: usize) {
        let end = len.saturating_sub(page.max(1));
        self.offset = match step {
            Step::Rows(by) => self.offset.saturating_add_signed(by),
            Step::Pages(by) => {
                self.offset.saturating_add_signed(by.saturating_mul(page.max(2) as isize - 1))
            }
            Step::First => 0,
            Step::Last => end,
        }
        .min(end);
        self.selected = self.offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cursor_stays_in_the_list_and_on_the_screen() {
        let mut list = List::default();
        list.step(Step::Last, 100, 10);
        assert_eq!((list.selected, list.offset), (99, 90));
        list.step(Step::Rows(-3), 100, 10);
        assert_eq!((list.selected, list.offset), (96, 90));
        list.step(Step::Pages(-1), 100, 10);
        assert_eq!((list.selected, list.offset), (87, 87));
        list.settle(5, 10);
        assert_eq!((list.selected, list.offset), (4, 0));
        list.settle(0, 0);
        list.step(Step::Rows(-1), 0, 0);
        assert_eq!((list.selected, list.offset), (0, 0));
    }

    #[test]
    fn a_text_ends_at_its_last_screen() {
        let mut list = List::default();
        list.scroll(Step::Last, 100, 30);
        assert_eq!(list.offset, 70);
        list.scroll(Step::Pages(5), 100, 30);
        assert_eq!(list.offset, 70);
        list.scroll(Step::First, 100, 30);
        list.scroll(Step::Rows(-1), 100, 30);
        assert_eq!(list.offset, 0);
    }
}
