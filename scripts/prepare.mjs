// placeholder until the frame is written
