-- piece_functions: the names of the functions that use_pieces() defines, which few calls need.
--
-- defines: piece_of, next_in_pieces, move_first_piece, pieces_of
-- needs: -
local piece_of, next_in_pieces, move_first_piece, pieces_of
