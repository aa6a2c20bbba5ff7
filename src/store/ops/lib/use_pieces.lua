-- use_pieces: the functions of pieces, which few calls need.
--
-- defines: use_pieces; after its call piece_of, begin_pieces, move_first_piece, pieces_of
-- needs: pieces
local piece_of, begin_pieces, move_first_piece, pieces_of

local function use_pieces()
  if not piece_of then piece_of, begin_pieces, move_first_piece, pieces_of = define_pieces() end
end
